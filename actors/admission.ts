/**
 * Admission: what new mail meets before it is in the queue. Hold rules hold all new mail that
 * matches; a pause turns new mail away while what is in the queue goes out.
 *
 * Both are acts of operators and stand in the log, on a stream of their own, so that they outlive
 * a restart and say who and why. `Admission` is the fold of that stream, kept in step with the
 * log; `decideAdmission` and `evolveAdmission` are pure.
 */
import type { EventData, Fact, StoredEvent } from "../events/catalogue.ts";
import { domainOf } from "../events/projections/queue.ts";
import { WrongVersion } from "../events/store.ts";
import { CommandRefused } from "./message.ts";
import type { EventStore } from "./ports.ts";

/** The stream that the acts stand on. No message has it: it is no ULID. */
export const ADMISSION_STREAM = "admission";

/** Rules are asked for every recipient, so there are not many. */
export const MAX_HOLD_RULES = 200;

export type HoldFilter = EventData<"HoldRuleAdded">["filter"];
export type HoldRule = EventData<"HoldRuleAdded"> & { readonly since: string };

export interface AdmissionState {
  readonly version: number;
  /** In the order in which they were added. */
  readonly rules: readonly HoldRule[];
  readonly paused?: EventData<"IntakePaused"> & { readonly since: string };
}

export type AdmissionCommand =
  | ({ readonly type: "AddHoldRule" } & EventData<"HoldRuleAdded">)
  | ({ readonly type: "RemoveHoldRule" } & EventData<"HoldRuleRemoved">)
  | ({ readonly type: "PauseIntake" } & EventData<"IntakePaused">)
  | ({ readonly type: "ResumeIntake" } & EventData<"IntakeResumed">);

/** New mail is turned away for now: the intake is paused. */
export class IntakeIsPaused extends Error {
  override readonly name = "IntakeIsPaused";
}

const NOTHING: AdmissionState = { version: 0, rules: [] };

/** @throws CommandRefused */
export function decideAdmission(command: AdmissionCommand, state: AdmissionState): Fact[] {
  const { type, ...data } = command;
  switch (type) {
    case "AddHoldRule": {
      const { id, filter } = data as EventData<"HoldRuleAdded">;
      if (Object.values(filter).every((criterion) => criterion === undefined)) {
        throw new CommandRefused("a hold rule needs a criterion; `queue drain` takes no new mail");
      }
      if (state.rules.some((rule) => rule.id === id)) {
        throw new CommandRefused(`there is a hold rule ${id} already`);
      }
      if (state.rules.length >= MAX_HOLD_RULES) {
        throw new CommandRefused(`there are ${MAX_HOLD_RULES} hold rules already; remove some`);
      }
      return [{ type: "HoldRuleAdded", data: data as EventData<"HoldRuleAdded"> }];
    }
    case "RemoveHoldRule": {
      const { id } = data as EventData<"HoldRuleRemoved">;
      if (!state.rules.some((rule) => rule.id === id)) {
        throw new CommandRefused(`there is no hold rule ${id}`);
      }
      return [{ type: "HoldRuleRemoved", data: data as EventData<"HoldRuleRemoved"> }];
    }
    case "PauseIntake":
      if (state.paused) throw new CommandRefused(`it is paused already: ${said(state.paused)}`);
      return [{ type: "IntakePaused", data }];
    case "ResumeIntake":
      if (!state.paused) throw new CommandRefused("it is not paused");
      return [{ type: "IntakeResumed", data }];
  }
}

export function evolveAdmission(state: AdmissionState, event: StoredEvent): AdmissionState {
  const next = { ...state, version: event.version };
  switch (event.type) {
    case "HoldRuleAdded":
      return { ...next, rules: [...state.rules, { ...event.data, since: event.time }] };
    case "HoldRuleRemoved":
      return { ...next, rules: state.rules.filter(({ id }) => id !== event.data.id) };
    case "IntakePaused":
      return { ...next, paused: { ...event.data, since: event.time } };
    case "IntakeResumed": {
      const { paused: _, ...rest } = next;
      return rest;
    }
    default:
      return next;
  }
}

export interface NewMail {
  readonly account: string | null;
  readonly mailFrom: string;
  readonly rcptTo: string;
}

/** Whether a rule holds a message; addresses are compared without regard to case. */
export function holds(
  { from, to, toDomain, account }: HoldFilter,
  { account: owner, mailFrom, rcptTo }: NewMail,
): boolean {
  const same = (wanted: string | undefined, found: string) =>
    wanted === undefined || wanted.toLowerCase() === found.toLowerCase();
  return same(from, mailFrom) && same(to, rcptTo) && same(toDomain, domainOf(rcptTo)) &&
    (account === undefined || account === owner);
}

/** What stands in the log about a pause, in words. */
export const said = ({ who, why }: { readonly who: string; readonly why: string }): string =>
  `by ${who}: ${why}`;

/** The admission of a running queue. */
export class Admission {
  #state = NOTHING;
  readonly #store: EventStore;
  /** Acts wait for each other. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(store: EventStore) {
    this.#store = store;
    store.subscribe((events) => {
      for (const event of events) this.#evolve(event);
    });
  }

  /** Reads what stands in the log; to be called once, before mail is taken. */
  async load(): Promise<void> {
    for (const event of await this.#store.readStream(ADMISSION_STREAM)) this.#evolve(event);
  }

  get state(): AdmissionState {
    return this.#state;
  }

  /** @throws IntakeIsPaused */
  admit(): void {
    const { paused } = this.#state;
    if (paused) throw new IntakeIsPaused(`no new mail is taken, ${said(paused)}`);
  }

  /** The first rule that holds a message. */
  holding(mail: NewMail): HoldRule | undefined {
    return this.#state.rules.find(({ filter }) => holds(filter, mail));
  }

  /**
   * @throws CommandRefused when it does not fit what is in force
   * @throws StoreUnavailable when it could not be recorded
   */
  act(command: AdmissionCommand): Promise<AdmissionState> {
    const turn = this.#turn.then(() => this.#act(command));
    this.#turn = turn.catch(() => {});
    return turn;
  }

  async #act(command: AdmissionCommand): Promise<AdmissionState> {
    for (let again = 0;; again++) {
      const facts = decideAdmission(command, this.#state);
      try {
        await this.#store.append([
          { stream: ADMISSION_STREAM, expectedVersion: this.#state.version, facts },
        ]);
        return this.#state;
      } catch (cause) {
        if (!(cause instanceof WrongVersion) || again === 3) throw cause;
        await this.load();
      }
    }
  }

  /** Events come from the reading and from the log; each counts once. */
  #evolve(event: StoredEvent): void {
    if (event.stream !== ADMISSION_STREAM || event.version !== this.#state.version + 1) return;
    this.#state = evolveAdmission(this.#state, event);
  }
}
