/** Operations on webhook endpoints (actors/webhooks.ts): how they are, parking and resuming them. */
import { z } from "zod";
import { CommandRefused } from "../../actors/message.ts";
import type { Webhooks } from "../../actors/webhooks.ts";
import { Timestamp } from "../../events/schemas/scalars.ts";
import { ACT_PROBLEMS, JSON_TYPE, OPERATOR_HEADER, readContent, Reason, whoActs } from "./acts.ts";
import type { HeldContent } from "./body.ts";
import type { Operation, Principal } from "./operation.ts";
import { conflict, forbidden, notFound } from "./problem.ts";

export interface WebhookPorts {
  /** Absent: there are none. */
  readonly webhooks?: Pick<Webhooks, "list" | "act">;
}

const Count = z.int().min(0);
export const WebhookShape = z.strictObject({
  name: z.string(),
  url: z.string(),
  events: z.array(z.string()),
  /** Why nothing is sent to it, and since when; null while it is in use. */
  parked: z.strictObject({ why: z.string(), since: Timestamp }).nullable(),
  /** Position of the log up to which it has been told, and positions behind that. */
  position: Count,
  behind: Count,
  told: Count,
  givenUp: Count,
  /** Failures in a row; 0 while it takes what it is sent. */
  failures: Count,
  lastError: z.string().nullable(),
});
export type WebhookEntry = z.output<typeof WebhookShape>;
const List = z.strictObject({ webhooks: z.array(WebhookShape) });

const Why = z.strictObject({ reason: Reason });
const Resume = z.strictObject({
  /** What happened until now is not told any more. */
  skip: z.boolean().default(false),
  reason: Reason,
});

export function webhookOperations({ webhooks }: WebhookPorts, held: HeldContent): Operation[] {
  if (!webhooks) return [];
  const act = (
    id: string,
    act: "park" | "resume",
    about: string,
    content: typeof Why | typeof Resume,
  ): Operation => ({
    id,
    method: "post",
    path: `/webhooks/{id}/${act}`,
    scope: "operate",
    about,
    parameters: [
      {
        name: "id",
        in: "path",
        about: "name of the endpoint in the config",
        schema: { type: "string" },
        required: true,
      },
      OPERATOR_HEADER,
    ],
    content: { [JSON_TYPE]: content },
    answer: { status: 200, about: "The endpoints after it.", schema: List },
    problems: [404, 409, ...ACT_PROBLEMS],
    handle: async (asked) => {
      forAll(asked.principal);
      const who = whoActs(asked);
      const { reason, ...rest } = await readContent(held, asked.request, content);
      if (!webhooks.list().some(({ name }) => name === asked.id)) {
        throw notFound("there is no webhook of this name in the config");
      }
      try {
        const skip = "skip" in rest && rest.skip === true;
        await webhooks.act(asked.id, { act, who, why: reason, skip });
      } catch (error) {
        if (error instanceof CommandRefused) throw conflict(error.message);
        throw error;
      }
      return { status: 200, body: { webhooks: webhooks.list() } };
    },
  });
  return [
    {
      id: "listWebhooks",
      method: "get",
      path: "/webhooks",
      scope: "read",
      about: "The webhook endpoints: how far they have been told, and which are parked.",
      answer: { status: 200, about: "The endpoints.", schema: List },
      problems: [],
      handle: ({ principal }) => {
        forAll(principal);
        return Promise.resolve({ status: 200, body: { webhooks: webhooks.list() } });
      },
    },
    act("parkWebhook", "park", "Sends nothing more to an endpoint; what happens waits.", Why),
    act("resumeWebhook", "resume", "Sends to a parked endpoint again.", Resume),
  ];
}

function forAll({ account }: Principal): void {
  if (account !== null) {
    throw forbidden("this token is bound to an account; webhooks are for all of them");
  }
}
