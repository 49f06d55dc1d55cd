"""What a page says after a step was taken; the address carries only the name."""

from __future__ import annotations

NOTICES = {
    "signed-out": "You are signed out.",
    "welcome": "Your account is ready.",
    "approved": "The request is approved and goes out to its destinations.",
    "denied": "The request is denied; the person is told why.",
    "extended": "The deadline is extended; the person is told why.",
    "held": "The request is on hold. Nothing goes out until it is released.",
    "released": "The request is released and goes on.",
    "cancelled": "The request is cancelled.",
    "answered": "The answer is stored; the person can fetch it.",
    "replayed": "The delivery is back in its queue.",
    "archive-replayed": "What could be replayed is back in its queues.",
    "waived": "The delivery is waived; the receipt will state it as an exception.",
    "destination-added": "The destination is added.",
    "destination-saved": "The destination is saved.",
    "destination-deleted": "The destination is deleted. Its past deliveries keep its name.",
    "pause": "The queue is paused. Calls under way finish; no new ones start.",
    "resume": "The queue goes on.",
    "boost": "The queue is looked at before all others.",
    "flush": "Everything that waited is tried now.",
    "task-closed": "The task is ticked off.",
    "site-added": "The site is added. Publish it to show its banner.",
    "site-saved": "The draft is saved. Visitors see it after publishing.",
    "published": "A new notice version is published.",
    "key-revoked": "The key is revoked; it no longer opens anything.",
    "role-changed": "The role is changed, from the next request on.",
    "disabled": "The account is disabled and signed out everywhere.",
    "password-changed": "The password is changed; all other sessions are signed out.",
    "factor-changed": "The second factor is changed; all other sessions are signed out.",
}
