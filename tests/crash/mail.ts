/**
 * The mail of a crash test: mostly plain, with some of everything that a sender can ask for and
 * that can become of it. What kind a message is follows from its id.
 */
import type { Envelope } from "../load/generator.ts";

/** Nobody is there: the sink refuses every recipient, for good. */
export const NOBODY = "gone.example";
/** Goes to a destination of its own, which is down now and then. */
export const LAME = "lame.example";
/** New mail to it is held while an operator has a rule in force. */
export const RULED = "ruled.example";

/** The next hop of LAME, as the config and the log name it. */
export const LAME_TRANSPORT = "lame";

const here = (local: string, domain = "load.example") => `<${local}@${domain}>`;

/** Reports go to the sender; which is another for each message, so that they can be told apart. */
const sender = (id: string) => here(`sender.${id}`);
const second = (id: string) => `${id}.2`;

const KINDS: Readonly<Record<number, (id: string) => Envelope>> = {
  0: (id) => ({ from: sender(id), to: [here(id, NOBODY)] }),
  1: (id) => ({ from: sender(id), to: [here(id, NOBODY), here(second(id), NOBODY)] }),
  2: (id) => ({ from: sender(id), to: [`${here(id, NOBODY)} NOTIFY=NEVER`] }),
  3: (id) => ({ from: `${sender(id)} RET=HDRS`, to: [`${here(id)} NOTIFY=SUCCESS`] }),
  4: (id) => ({ from: "<>", to: [here(id, NOBODY)] }),
  5: (id) => ({ from: sender(id), to: [here(id), here(second(id))] }),
};
/** Of so many messages, one is of each kind, and the last few are for the lame destination. */
const ROUND = 40;
const FOR_LAME = 34;

export function envelopeOf(id: string): Envelope {
  const n = Number(id) % ROUND;
  return KINDS[n]?.(id) ?? {
    from: sender(id),
    to: [n >= FOR_LAME ? here(id, LAME) : here(id)],
  };
}

/** The local parts of the recipients of a message, by which books and sink know it. */
export const recipientsOf = (id: string): string[] =>
  envelopeOf(id).to.map((path) => path.slice(1, path.indexOf("@")));
