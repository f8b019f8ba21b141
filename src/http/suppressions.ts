/** Operations on the suppression list (actors/suppression.ts). */
import { z } from "zod";
import { CommandRefused } from "../../actors/message.ts";
import type { Suppressions } from "../../actors/suppression.ts";
import { Timestamp } from "../../events/schemas/scalars.ts";
import type { SuppressionRow } from "../../events/projections/suppression.ts";
import { parseDuration } from "../config/scalars.ts";
import { BadAddress, parseMailbox } from "../smtp/address.ts";
import { ACT_PROBLEMS, JSON_TYPE, OPERATOR_HEADER, readContent, Reason, whoActs } from "./acts.ts";
import type { HeldContent } from "./body.ts";
import { mayKnow, type Operation, type Principal, valueOf, wholeNumber } from "./operation.ts";
import { badParameter, forbidden, notFound } from "./problem.ts";

export interface SuppressionListPorts {
  /** Absent: there is no list. */
  readonly suppressions?: Pick<Suppressions, "list" | "add" | "lift">;
}

const PAGE = 100;
const MOST = 1_000;

const Address = z.string().max(320).refine((text) => {
  try {
    return parseMailbox(text) !== undefined;
  } catch (error) {
    if (error instanceof BadAddress) return false;
    throw error;
  }
}, { error: "is not an address" });
const Account = z.string().min(1).max(255).nullable().optional();

const NewEntry = z.strictObject({
  address: Address,
  /** Null or absent: mail of everybody. */
  account: Account,
  cause: z.enum(["complaint", "manual"]).default("manual"),
  /** Like "90d"; absent: until it is lifted. */
  lasts: z.string().max(32).refine((text) => parseDuration(text) !== undefined, {
    error: 'is not a duration; write it like "90d" or "12h"',
  }).optional(),
  reason: Reason,
});
const Lifted = z.strictObject({ address: Address, account: Account, reason: Reason });

export const SuppressionShape = z.strictObject({
  address: z.string(),
  account: z.string().nullable(),
  cause: z.enum(["bounce", "complaint", "manual"]),
  who: z.string(),
  why: z.string(),
  /** For a bounce: the message that failed. */
  message: z.string().nullable(),
  since: Timestamp,
  expires: Timestamp.nullable(),
});
export type SuppressionEntry = z.output<typeof SuppressionShape>;
const List = z.strictObject({
  suppressions: z.array(SuppressionShape),
  /** Cursor of the next page. */
  next: z.string().nullable(),
});

export function suppressionOperations(
  { suppressions }: SuppressionListPorts,
  held: HeldContent,
): Operation[] {
  if (!suppressions) return [];
  return [
    {
      id: "listSuppressions",
      method: "get",
      path: "/suppressions",
      scope: "read",
      about: "Addresses that new mail is refused to, in their order.",
      parameters: [
        { name: "after", in: "query", about: "cursor", schema: { type: "string" } },
        { name: "limit", in: "query", about: "1 to 1000", schema: { type: "integer" } },
      ],
      answer: { status: 200, about: "A page of the list.", schema: List },
      problems: [],
      handle: ({ principal, query }) => {
        const text = valueOf(query, "limit");
        const limit = text === undefined ? PAGE : wholeNumber(text, MOST);
        if (!limit) throw badParameter("limit", `it takes 1 to ${MOST}`);
        const after = valueOf(query, "after");
        const rows = suppressions.list(limit, after === undefined ? undefined : cursor(after));
        const last = rows.length < limit ? undefined : rows.at(-1);
        return Promise.resolve({
          status: 200,
          body: {
            suppressions: rows.filter((row) => mayKnow(principal, row.account)).map(entryOf),
            next: last ? encodeURIComponent(last.id) : null,
          },
        });
      },
    },
    {
      id: "suppress",
      method: "post",
      path: "/suppressions",
      scope: "operate",
      about: "Refuses new mail to an address; mail in the queue stays as it is.",
      parameters: [OPERATOR_HEADER],
      content: { [JSON_TYPE]: NewEntry },
      answer: { status: 201, about: "The entry.", schema: SuppressionShape },
      problems: [...ACT_PROBLEMS],
      handle: async (asked) => {
        const who = whoActs(asked);
        const { address, cause, lasts, reason, ...rest } = await readContent(
          held,
          asked.request,
          NewEntry,
        );
        const row = await suppressions.add({
          who,
          why: reason,
          address,
          cause,
          ...accountOf(asked.principal, rest.account),
          ...(lasts === undefined ? {} : { lasts: parseDuration(lasts)! }),
        });
        return { status: 201, body: entryOf(row) };
      },
    },
    {
      id: "liftSuppression",
      method: "post",
      path: "/suppressions/lift",
      scope: "operate",
      about: "Takes an address off the list: mail to it is taken again.",
      parameters: [OPERATOR_HEADER],
      content: { [JSON_TYPE]: Lifted },
      answer: {
        status: 200,
        about: "It is off the list.",
        schema: z.strictObject({ address: z.string() }),
      },
      problems: [404, ...ACT_PROBLEMS],
      handle: async (asked) => {
        const who = whoActs(asked);
        const { address, account, reason } = await readContent(held, asked.request, Lifted);
        try {
          await suppressions.lift({
            who,
            why: reason,
            address,
            ...accountOf(asked.principal, account),
          });
        } catch (error) {
          if (error instanceof CommandRefused) throw notFound(error.message);
          throw error;
        }
        return { status: 200, body: { address } };
      },
    },
  ];
}

/** A token that is bound to an account acts on that one's list. @throws RequestProblem 403 */
function accountOf(
  principal: Principal,
  asked: string | null | undefined,
): { readonly account?: string } {
  if (principal.account === null) return asked ? { account: asked } : {};
  if (asked === undefined || asked === principal.account) return { account: principal.account };
  throw forbidden(`this token is bound to the account ${principal.account}`);
}

function cursor(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw badParameter("after", "it is not a cursor that a list gave");
  }
}

const entryOf = (row: SuppressionRow): SuppressionEntry => ({
  address: row.address,
  account: row.account,
  cause: row.cause,
  who: row.who,
  why: row.why,
  message: row.message,
  since: new Date(row.since).toISOString(),
  expires: row.expires === null ? null : new Date(row.expires).toISOString(),
});
