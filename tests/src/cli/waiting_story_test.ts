/** The story of messages that wait, as the commands tell it: of a delay, and of the end. */
import { after, before, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import type { Fact } from "../../../events/catalogue.ts";
import { run as audit } from "../../../src/cli/audit.ts";
import { run as queue } from "../../../src/cli/queue.ts";
import { run as replay } from "../../../src/cli/replay.ts";
import {
  enqueued,
  failed,
  type Given,
  givenStore,
  smallBody,
  started,
} from "../../events/given.ts";
import { chosen, type Ran, ran } from "./given_queue.ts";

const ID = "01KGA000000000000000000001";
const DUE = "2026-01-31T09:31:00.000Z";
const UNTIL = "2026-02-05T09:30:00.000Z";
const noted: Fact = {
  type: "DSNPostponed",
  data: { kind: "delayed", due: DUE, until: UNTIL, why: "its destination is down: no answer" },
};

describe("a delay whose report waits", () => {
  let given: Given;
  before(async () => {
    given = await givenStore();
    const body = smallBody("body");
    const facts = [enqueued({ body: body.sha256, recipients: 2 }), started(1), chosen("direct")];
    const all = [
      ...facts,
      failed(false),
      noted,
      started(2),
      chosen("direct"),
      failed(false),
      noted,
    ];
    const told: Fact = { type: "DSNSent", data: { kind: "delayed", dsn: "01DSN" } };
    await given.store.append([{ stream: ID, expectedVersion: 0, facts: [...all, told] }], [body]);
  });
  after(() => given.end());

  const withData = (run: Parameters<typeof ran>[0], ...args: string[]): Promise<Ran> =>
    ran(run, [...args, "--data", given.dataDir]);

  it("is replayed: noted, taken back by an attempt, noted again, told", async () => {
    const { code, stdout } = await withData(replay, ID);
    assert.equal(code, 0);
    const steps = stdout.split(/\n(?=\d)/);
    const line = `delayed: at ${DUE}, with other recipients; tried until ${UNTIL}; ` +
      "its destination is down: no answer";
    assert.match(steps[4]!, new RegExp(`^5 .* DSNPostponed {2}${line}\n`));
    assert.match(steps[4]!, new RegExp(` report due {6}${DUE}`));
    assert.match(steps[5]!, new RegExp(` report due {6}${DUE} → none`));
    assert.match(steps[9]!, /^10 .* DSNSent {2}delayed: 01DSN\n/);
    assert.match(steps[9]!, / delay reported {2}no → yes/);
  });

  it("is among the notes of the message, and in the trail", async () => {
    const { stdout } = await withData(queue, "show", ID);
    assert.match(stdout, new RegExp(`DSNPostponed {2}kind delayed, due ${DUE}, until ${UNTIL}`));
    const csv = await withData(audit, "export", "--format", "csv");
    assert.match(csv.stdout, new RegExp(`DSNPostponed,.*delayed: at ${DUE}`));
  });
});

describe("the end of a message that waited", () => {
  const NEVER_TRIED = "01KGA000000000000000000002";
  let given: Given;
  before(async () => {
    given = await givenStore();
    const body = smallBody("body");
    const first = enqueued({ body: body.sha256 });
    const over = failed(true, "gave up after 120 hours: no turn");
    const tried = [first, started(1), chosen("direct"), failed(false, "greylisted"), over];
    await given.store.append([{ stream: ID, expectedVersion: 0, facts: tried }], [body]);
    const never = [first, over];
    await given.store.append([{ stream: NEVER_TRIED, expectedVersion: 0, facts: never }], [body]);
  });
  after(() => given.end());

  const shown = async (id: string) =>
    (await ran(queue, ["show", id, "--data", given.dataDir])).stdout;

  it("stands beside its attempts, whose outcomes stay as they were", async () => {
    const story = await shown(ID);
    assert.match(story, /attempt 1, [^]*failed {6}.*, temporary: greylisted/);
    assert.match(story, /Failed {2}permanent true, .*reason gave up after 120 hours: no turn/);
  });

  it("is told where there was no attempt", async () => {
    assert.match(await shown(NEVER_TRIED), /Failed {2}permanent true, .*reason gave up after/);
  });
});
