/**
 * Takes messages in: a stream per recipient, all of them and the body in one append. When `submit`
 * resolves, the sender may have its 250 (invariant 1).
 */
import { StoreUnavailable } from "../events/store.ts";
import type { Clock, EventStore, Ids, Submission, Submitter } from "./ports.ts";
import type { Admission } from "./admission.ts";
import type { Suppressions } from "./suppression.ts";
import { decide } from "./message.ts";

export class QueueSubmitter implements Submitter {
  constructor(
    private readonly ports: {
      readonly clock: Clock;
      readonly ids: Ids;
      readonly store: EventStore;
      /** Told when the store did not take a message; what the disk holds is then not known. */
      readonly unavailable?: () => void;
      /** Hold rules and pauses; absent: there are none. */
      readonly admission?: Pick<Admission, "state" | "admit" | "holding">;
      /** The suppression list; absent: there is none. */
      readonly suppressions?: Pick<Suppressions, "against">;
    },
  ) {}

  newSubmissionId(): string {
    return this.ports.ids.next();
  }

  get paused(): boolean {
    return this.ports.admission?.state.paused !== undefined;
  }

  suppressed(rcptTo: string, account: string | null): ReturnType<Suppressions["against"]> {
    return this.ports.suppressions?.against(rcptTo, account);
  }

  async submit(submission: Submission): Promise<{ stream: string; rcptTo: string }[]> {
    const { clock, ids, store, admission } = this.ports;
    admission?.admit();
    const { id, body, recipients, due, expires, ...rest } = submission;
    const message = {
      ...rest,
      size: body.size,
      body: body.sha256,
      submission: id,
      ...(recipients.length > 1 ? { recipients: recipients.length } : {}),
      due: new Date(due ?? clock.now()).toISOString(),
      ...(expires === undefined ? {} : { expires: new Date(expires).toISOString() }),
    };
    const taken = recipients.map(({ rcptTo, dsn }) => {
      const facts = decide({ type: "Enqueue", data: { ...message, rcptTo, dsn } }, undefined);
      const rule = admission?.holding({ ...submission, rcptTo });
      if (rule) {
        facts.push({
          type: "Held",
          data: { who: rule.who, why: `hold rule ${rule.id}: ${rule.why}` },
        });
      }
      return { stream: ids.next(), rcptTo, facts };
    });
    try {
      await store.append(
        taken.map(({ stream, facts }) => ({ stream, expectedVersion: 0, facts })),
        [body],
      );
    } catch (cause) {
      if (cause instanceof StoreUnavailable) this.ports.unavailable?.();
      throw cause;
    }
    return taken.map(({ stream, rcptTo }) => ({ stream, rcptTo }));
  }
}
