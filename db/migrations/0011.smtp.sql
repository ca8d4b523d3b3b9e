-- What the replies of mail servers mean. A code is <stage>_<status>: connect_535,
-- rcpt_5.1.1. No reply before there is a recipient is about the message, so it is the
-- sender's, unless it is about size or will pass. 4yz and 5yz: any other status.
-- depends: 0010.channels

insert into pgdrip.error_rules (channel, code, class, source)
select 'smtp', s.stage || '_' || r.status, s.class, r.source
  from (values
    ('421', 'sender', 'transient', 'transient', 'transient', 'RFC 5321 4.2.2: closing the connection'),
    ('432', 'sender', 'sender', 'sender', 'sender', 'RFC 4954 6: a password transition is needed'),
    ('450', 'sender', 'transient', 'transient', 'transient', 'RFC 5321 4.2.2: mailbox unavailable'),
    ('451', 'sender', 'transient', 'transient', 'transient', 'RFC 5321 4.2.2: local error'),
    ('452', 'sender', 'transient', 'transient', 'transient', 'RFC 5321 4.2.2: insufficient storage'),
    ('454', 'sender', 'transient', 'transient', 'transient', 'RFC 4954 6, RFC 3207 4: temporary failure'),
    ('455', 'sender', 'transient', 'transient', 'transient', 'RFC 5321 4.2.2: parameters not taken now'),
    ('4yz', 'sender', 'transient', 'transient', 'transient', 'RFC 5321 4.2.1: transient'),
    ('500', 'sender', 'sender', 'sender', 'content', 'RFC 5321 4.2.2: command or line not understood'),
    ('501', 'sender', 'sender', 'contact', 'content', 'RFC 5321 4.2.2: syntax of an argument'),
    ('502', 'sender', 'sender', 'sender', 'sender', 'RFC 5321 4.2.2: command not implemented'),
    ('503', 'sender', 'sender', 'sender', 'sender', 'RFC 5321 4.2.2: bad sequence of commands'),
    ('504', 'sender', 'sender', 'sender', 'sender', 'RFC 5321 4.2.2: parameter not implemented'),
    ('521', 'sender', 'sender', 'contact', 'contact', 'RFC 7504 3: the host takes no mail'),
    ('530', 'sender', 'sender', 'sender', 'sender', 'RFC 4954 6, RFC 3207 4: login or TLS is required'),
    ('534', 'sender', 'sender', 'sender', 'sender', 'RFC 4954 6: login mechanism too weak'),
    ('535', 'sender', 'sender', 'sender', 'sender', 'RFC 4954 6: credentials invalid'),
    ('538', 'sender', 'sender', 'sender', 'sender', 'RFC 4954 6: login needs encryption'),
    ('550', 'sender', 'sender', 'contact', 'content', 'RFC 5321 4.2.2: no such mailbox, or policy'),
    ('551', 'sender', 'sender', 'contact', 'contact', 'RFC 5321 4.2.2: user not local'),
    ('552', 'sender', 'content', 'contact', 'content', 'RFC 5321 4.2.2, RFC 1870: mailbox full, or mail too large'),
    ('553', 'sender', 'sender', 'contact', 'contact', 'RFC 5321 4.2.2: mailbox name not allowed'),
    ('554', 'sender', 'sender', 'permanent', 'content', 'RFC 5321 4.2.2: no service here, or transaction failed'),
    ('555', 'sender', 'sender', 'sender', 'sender', 'RFC 5321 4.2.2: parameters not recognized'),
    ('556', 'sender', 'sender', 'contact', 'contact', 'RFC 7504 4: the domain takes no mail'),
    ('5yz', 'sender', 'sender', 'permanent', 'permanent', 'RFC 5321 4.2.1: permanent')
  ) as r(status, connect, mail, rcpt, data, source),
  lateral (values ('connect', r.connect), ('mail', r.mail), ('rcpt', r.rcpt), ('data', r.data)
  ) as s(stage, class);

insert into pgdrip.error_rules (channel, code, class, source)
select 'smtp', s.stage || '_' || r.status, s.class, r.source
  from (values
    ('5.1.1', 'contact', 'contact', 'RFC 3463 3.2: no such mailbox'),
    ('5.1.2', 'contact', 'contact', 'RFC 3463 3.2: no such domain'),
    ('5.1.3', 'contact', 'contact', 'RFC 3463 3.2: syntax of the address'),
    ('5.1.4', 'contact', 'contact', 'RFC 3463 3.2: ambiguous address'),
    ('5.1.6', 'contact', 'contact', 'RFC 3463 3.2: mailbox has moved'),
    ('5.1.7', 'sender', 'sender', 'RFC 3463 3.2: syntax of the sender''s address'),
    ('5.1.8', 'sender', 'sender', 'RFC 3463 3.2: the sender''s domain'),
    ('5.1.9', 'permanent', 'permanent', 'RFC 3886: relayed to where statuses are unknown'),
    ('5.1.10', 'contact', 'contact', 'RFC 7505: the domain takes no mail'),
    ('5.2.1', 'contact', 'contact', 'RFC 3463 3.3: mailbox disabled'),
    ('5.2.2', 'contact', 'contact', 'RFC 3463 3.3: mailbox full'),
    ('5.2.3', 'content', 'content', 'RFC 3463 3.3: larger than the mailbox takes'),
    ('5.2.4', 'contact', 'contact', 'RFC 3463 3.3: mailing list'),
    ('5.3.4', 'content', 'content', 'RFC 3463 3.4: larger than the system takes'),
    ('5.4.1', 'contact', 'contact', 'RFC 3463 3.5: no answer from the host'),
    ('5.4.4', 'contact', 'contact', 'RFC 3463 3.5: no route to the domain'),
    ('5.4.5', 'sender', 'sender', 'RFC 3463 3.5: congestion; Gmail: daily limit of the sender'),
    ('5.4.6', 'permanent', 'permanent', 'RFC 3463 3.5: routing loop'),
    ('5.4.7', 'permanent', 'permanent', 'RFC 3463 3.5: too old to be delivered'),
    ('5.6.1', 'content', 'content', 'RFC 3463 3.7: media not supported'),
    ('5.6.2', 'content', 'content', 'RFC 3463 3.7: conversion prohibited'),
    ('5.6.3', 'content', 'content', 'RFC 3463 3.7: conversion not supported'),
    ('5.6.5', 'content', 'content', 'RFC 3463 3.7: conversion failed'),
    ('5.6.6', 'content', 'content', 'RFC 4468: content not available'),
    ('5.6.7', 'contact', 'contact', 'RFC 6531 3.5: addresses beyond ASCII not permitted'),
    ('5.6.9', 'content', 'content', 'RFC 6531 3.5: headers beyond ASCII not permitted'),
    ('5.7.1', 'sender', 'content', 'RFC 3463 3.8: not authorized; at rcpt relaying, at data the content'),
    ('5.7.2', 'contact', 'contact', 'RFC 3463 3.8: closed mailing list'),
    ('5.7.8', 'sender', 'sender', 'RFC 4954 6: credentials invalid'),
    ('5.7.9', 'sender', 'sender', 'RFC 4954 6: login mechanism too weak'),
    ('5.7.10', 'sender', 'sender', 'RFC 5248: encryption needed'),
    ('5.7.11', 'sender', 'sender', 'RFC 4954 6: login needs encryption'),
    ('5.7.13', 'blocked', 'blocked', 'RFC 5248: account disabled'),
    ('5.7.14', 'sender', 'sender', 'RFC 5248: trust relationship required'),
    ('5.7.16', 'content', 'content', 'RFC 6710: too large for its priority'),
    ('5.7.17', 'contact', 'contact', 'RFC 7293: mailbox has changed hands'),
    ('5.7.18', 'contact', 'contact', 'RFC 7293: domain has changed hands'),
    ('5.7.20', 'sender', 'sender', 'RFC 7372 3.1: no passing DKIM signature'),
    ('5.7.21', 'sender', 'sender', 'RFC 7372 3.1: no acceptable DKIM signature'),
    ('5.7.22', 'sender', 'sender', 'RFC 7372 3.1: no DKIM signature of the author'),
    ('5.7.23', 'sender', 'sender', 'RFC 7372 3.2: SPF failed'),
    ('5.7.24', 'sender', 'sender', 'RFC 7372 3.2: SPF could not be evaluated'),
    ('5.7.25', 'sender', 'sender', 'RFC 7372 3.3: reverse DNS failed'),
    ('5.7.26', 'sender', 'sender', 'RFC 7372 3.4: several authentication checks failed'),
    ('5.7.27', 'sender', 'sender', 'RFC 7505: the sender''s domain takes no mail'),
    ('5.7.28', 'blocked', 'blocked', 'IANA enhanced status codes: a flood of mail was seen')
  ) as r(status, rcpt, data, source),
  lateral (values ('rcpt', r.rcpt), ('data', r.data)) as s(stage, class);

insert into pgdrip.error_rules (channel, code, class, source) values
  ('smtp', 'media_refused', 'content', 'docs/channels.md: not https, not public, too large or of another type'),
  ('smtp', 'media_missing', 'content', 'RFC 9110 15.5: the server of the media answered 4xx'),
  ('smtp', 'media_unavailable', 'transient', 'RFC 9110 15.6: no answer, 5xx, 408, 425 or 429');
