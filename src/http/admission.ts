/** Operations on what new mail meets: hold rules, and the pause of the intake (actors/admission.ts). */
import { z } from "zod";
import type { Admission, AdmissionCommand } from "../../actors/admission.ts";
import { CommandRefused } from "../../actors/message.ts";
import type { QueueView } from "../../events/projections/queue.ts";
import { BadAddress, isDomain, parseMailbox } from "../smtp/address.ts";
import { ACT_PROBLEMS, JSON_TYPE, OPERATOR_HEADER, readContent, Reason, whoActs } from "./acts.ts";
import type { HeldContent } from "./body.ts";
import type { Answer, ApiRequest, Operation, Principal } from "./operation.ts";
import { badParameter, conflict, forbidden, notFound } from "./problem.ts";
import { HoldRuleList, HoldRuleShape, IntakeState } from "./shapes.ts";

export interface AdmissionPorts {
  readonly queue: QueueView;
  readonly now: () => number;
  readonly admission: Pick<Admission, "state" | "act">;
  /** A new id for a rule. */
  readonly newId: () => string;
}

interface IntakePorts {
  readonly queue: Pick<QueueView, "depth" | "due" | "nextDue">;
  readonly now: () => number;
  readonly admission: Pick<Admission, "state">;
}

const address = z.string().max(320).refine((text) => {
  try {
    return parseMailbox(text) !== undefined;
  } catch (error) {
    if (error instanceof BadAddress) return false;
    throw error;
  }
}, { error: "is not an address" });

const NewRule = z.strictObject({
  filter: z.strictObject({
    /** "<>": the null reverse-path. */
    from: z.union([z.literal("<>"), address], { error: "is not an address" }).optional(),
    to: address.optional(),
    toDomain: z.string().max(255).refine(isDomain, { error: "is not a domain" }).optional(),
    account: z.string().min(1).max(255).optional(),
  }).refine((filter) => Object.keys(filter).length > 0, {
    error: "has no criterion; to take no mail at all, pause the intake",
  }),
  reason: Reason,
});

const Why = z.strictObject({ reason: Reason });

export function admissionOperations(ports: AdmissionPorts, held: HeldContent): Operation[] {
  const { admission } = ports;
  const intake = async (): Promise<Answer> => ({ status: 200, body: await intakeState(ports) });
  const switched = (
    id: string,
    type: "PauseIntake" | "ResumeIntake",
    about: string,
  ): Operation => ({
    id,
    method: "post",
    path: type === "PauseIntake" ? "/intake/pause" : "/intake/resume",
    scope: "operate",
    about,
    parameters: [OPERATOR_HEADER],
    content: { [JSON_TYPE]: Why },
    answer: { status: 200, about: "The intake after it.", schema: IntakeState },
    problems: [409, ...ACT_PROBLEMS],
    handle: async (asked) => {
      forAll(asked.principal);
      const who = whoActs(asked);
      const { reason } = await readContent(held, asked.request, Why);
      await act(admission, { type, who, why: reason });
      return await intake();
    },
  });
  return [
    {
      id: "listHoldRules",
      method: "get",
      path: "/hold-rules",
      scope: "read",
      about: "The hold rules in force: new mail that one of them matches is held.",
      answer: { status: 200, about: "The rules, oldest first.", schema: HoldRuleList },
      problems: [],
      handle: ({ principal }) => {
        forAll(principal);
        return Promise.resolve({ status: 200, body: { rules: admission.state.rules } });
      },
    },
    {
      id: "addHoldRule",
      method: "post",
      path: "/hold-rules",
      scope: "operate",
      about:
        "Adds a hold rule: all of its criteria have to hold. Mail in the queue stays as it is.",
      parameters: [OPERATOR_HEADER],
      content: { [JSON_TYPE]: NewRule },
      answer: { status: 201, about: "The rule.", schema: HoldRuleShape },
      problems: [409, ...ACT_PROBLEMS],
      handle: (asked) => addRule(ports, held, asked),
    },
    {
      id: "removeHoldRule",
      method: "delete",
      path: "/hold-rules/{id}",
      scope: "operate",
      about: "Removes a hold rule. Mail that it held stays held.",
      parameters: [
        {
          name: "id",
          in: "path",
          about: "id of the rule",
          schema: { type: "string" },
          required: true,
        },
        { name: "reason", in: "query", about: "why, for the log", schema: { type: "string" } },
        OPERATOR_HEADER,
      ],
      answer: { status: 200, about: "The rules that are left.", schema: HoldRuleList },
      problems: [404, 503],
      handle: (asked) => removeRule(ports, asked),
    },
    {
      id: "showIntake",
      method: "get",
      path: "/intake",
      scope: "read",
      about: "Whether new mail is taken, and how much is still to be done.",
      answer: { status: 200, about: "The intake.", schema: IntakeState },
      problems: [503],
      handle: ({ principal }) => {
        forAll(principal);
        return intake();
      },
    },
    switched(
      "pauseIntake",
      "PauseIntake",
      "Takes no new mail, while what is in the queue goes out; it outlives a restart.",
    ),
    switched("resumeIntake", "ResumeIntake", "Takes new mail again."),
  ];
}

/** What is in force for everybody is not for tokens of one account. */
function forAll({ account }: Principal): void {
  if (account !== null) {
    throw forbidden("this token is bound to an account; this is for all of them");
  }
}

async function addRule(
  { admission, newId }: AdmissionPorts,
  held: HeldContent,
  asked: ApiRequest,
): Promise<Answer> {
  forAll(asked.principal);
  const who = whoActs(asked);
  const { filter: { from, ...rest }, reason } = await readContent(held, asked.request, NewRule);
  const id = newId();
  const filter = { ...rest, ...(from === undefined ? {} : { from: from === "<>" ? "" : from }) };
  const { rules } = await act(admission, { type: "AddHoldRule", id, filter, who, why: reason });
  return { status: 201, body: rules.find((rule) => rule.id === id) };
}

async function removeRule({ admission }: AdmissionPorts, asked: ApiRequest): Promise<Answer> {
  forAll(asked.principal);
  const who = whoActs(asked);
  const { id, query } = asked;
  const why = Reason.safeParse(query.get("reason")?.[0]);
  if (!why.success) throw badParameter("reason", "it takes one line of up to 500 characters");
  if (!admission.state.rules.some((rule) => rule.id === id)) {
    throw notFound("there is no hold rule with this id");
  }
  const { rules } = await act(admission, { type: "RemoveHoldRule", id, who, why: why.data });
  return { status: 200, body: { rules } };
}

async function act(admission: AdmissionPorts["admission"], command: AdmissionCommand) {
  try {
    return await admission.act(command);
  } catch (error) {
    if (error instanceof CommandRefused) throw conflict(error.message);
    throw error;
  }
}

/** The intake as operators see it. */
export async function intakeState({ queue, admission, now }: IntakePorts): Promise<IntakeState> {
  const { paused } = admission.state;
  // In this order: what is due when it is asked may be tried by the time that the tries are counted.
  const due = await queue.due(now(), 1);
  const { attempting, queued, held } = await queue.depth();
  const next = due[0]?.due ?? await queue.nextDue(now());
  return {
    paused: paused ?? null,
    idle: attempting === 0 && due.length === 0,
    attempting,
    queued,
    held,
    nextAttempt: next === undefined ? null : new Date(next).toISOString(),
  };
}
