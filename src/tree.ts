/**
 * The supervision tree: every part of the process that can fail by itself, and what follows.
 *
 *   postledger           queue, then doors; a failure restarts the part and those after it.
 *   │                    More than 5 in a minute: the process ends, the service manager restarts it
 *   ├─ queue             finishes open attempts, starts what is due, runs the message actors
 *   ├─ doors             each restarts alone; more than 5 in a minute is a failure of `doors`
 *   │  ├─ smtp NAME …    one per SMTP listener
 *   │  └─ http NAME …    one per HTTP listener
 *   ├─ mta-sts           fetches policies that are in use again before they expire
 *   ├─ tls-reports       sends the reports about yesterday
 *   ├─ suppression       puts addresses that bounced on the suppression list
 *   ├─ webhooks          tells endpoints what became of messages
 *   └─ retention         moves what is finished into the archive
 *
 * Below the tree is the store: it is opened first and closed last, looks after its own disk
 * (events/log.ts), and a process without it ends. Beside the tree are the messages: each is
 * supervised on its own (actors/message_actor.ts), and none of them can fail its queue.
 */
import type { Clock, Log } from "../actors/ports.ts";
import { Branch, type Part } from "../actors/supervision.ts";

interface Ports {
  readonly clock: Clock;
  readonly log: Log;
}

const MINUTE = 60_000;

/** @param chores what is done beside the queue; a failure of one restarts it and those after it */
export function supervisionTree(
  queue: Part,
  doors: Part,
  ports: Ports,
  chores: readonly Part[] = [],
): Branch {
  return new Branch({
    name: "postledger",
    restart: "with those after it",
    atMost: 5,
    within: MINUTE,
    parts: [queue, doors, ...chores],
  }, ports);
}

export function doorsBranch(listeners: readonly Part[], ports: Ports): Branch {
  return new Branch({
    name: "doors",
    restart: "alone",
    atMost: 5,
    within: MINUTE,
    parts: listeners,
  }, ports);
}
