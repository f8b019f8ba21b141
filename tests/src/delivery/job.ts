/** The message of the delivery tests, as a job for whatever delivers it. */
import type { BodyStore, DeliveryJob } from "../../../actors/ports.ts";
import type { EventData } from "../../../events/catalogue.ts";
import { bodyOf, MESSAGE, octets } from "../smtp/harness.ts";

/** Holds that message, and takes no other. */
export const BODIES: Pick<BodyStore, "open" | "create"> = {
  open: () => Promise.resolve(bodyOf(octets(MESSAGE))),
  create: () => {
    throw new Error("delivery writes no bodies");
  },
};

export interface JobChanges extends Partial<Omit<DeliveryJob, "message">> {
  readonly message?: Partial<EventData<"Enqueued">>;
}

/** The first attempt of a message from alice@us.example to bob@example.org, but for the changes. */
export function jobOf({ message, ...changes }: JobChanges = {}): DeliveryJob {
  return {
    stream: "01J",
    attempt: 1,
    tried: [],
    transport: { transport: "direct", type: "direct", because: { kind: "default" } },
    ...changes,
    message: {
      account: null,
      mailFrom: "alice@us.example",
      rcptTo: "bob@example.org",
      size: MESSAGE.length,
      body: "0".repeat(64),
      messageId: null,
      has8bit: false,
      smtputf8: false,
      requireTLS: false,
      dsn: {},
      submission: "01J",
      source: { kind: "smtp" },
      due: "2026-01-01T00:00:00.000Z",
      ...message,
    },
  };
}
