/** Several recipients of one message in one transaction, each with its own outcome. */
import { afterEach, beforeEach, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import type { DeliveryJob, Finding, Findings, Outcome } from "../../../actors/ports.ts";
import { transcriptOf } from "../../../src/delivery/shared_transcript.ts";
import type { Script } from "../smtp/scripted_server.ts";
import { DIRECT, World } from "./world.ts";

/** What one recipient's log would have. */
class Notes implements Findings {
  readonly found: Finding[] = [];
  settled: Outcome | undefined;
  constructor(readonly diary: string[], readonly rcptTo: string) {}
  note(finding: Finding): void {
    this.found.push(finding);
  }
  flush(): Promise<void> {
    return Promise.resolve();
  }
  settle(outcome: Outcome): Promise<void> {
    this.settled = outcome;
    this.diary.push(`settle ${this.rcptTo}`);
    return Promise.resolve();
  }
  get tried() {
    return this.found.flatMap((one) => one.type === "HostTried" ? [one.data] : []);
  }
}

let world: World;
beforeEach(() => {
  world = new World([DIRECT]);
});
afterEach(() => world.stop());

async function send(...names: string[]) {
  const jobs: DeliveryJob[] = names.map((name) => world.job("direct", `${name}@example.net`));
  const notes = jobs.map(({ message }) => new Notes(world.diary, message.rcptTo));
  const outcomes = await world.transports.attempt(jobs, notes, new AbortController().signal);
  return { outcomes, notes };
}
const kinds = (outcomes: readonly Outcome[]) =>
  outcomes.map((outcome) =>
    outcome.kind === "delivered" ? "ok" : outcome.permanent ? "no" : "later"
  );

describe("recipients of one message", () => {
  const refusing = (replies: Readonly<Record<string, string>>): Script => ({
    answers: { RCPT: (line: string) => replies[/<(\w+)@/.exec(line)![1]!] ?? "250 2.1.5 Ok" },
  });

  it("go in one transaction, each with its own verdict", async () => {
    world.domain("example.net", [10, "mx1.example.net"]);
    const server = await world.host(
      "mx1.example.net",
      "192.0.2.1",
      refusing({
        bob: "550 5.1.1 No such user",
        carol: "451 4.7.1 Greylisted",
      }),
    );
    const { outcomes, notes } = await send("ann", "bob", "carol", "dave");
    assert.deepEqual(kinds(outcomes), ["ok", "no", "later", "ok"]);
    assert.equal(server.commands.filter((line) => line.startsWith("MAIL")).length, 1);
    assert.equal(server.commands.filter((line) => line.startsWith("RCPT")).length, 4);
    assert.equal(server.commands.filter((line) => line === "DATA").length, 1);
    assert.equal(notes[1]!.tried[0]!.reply!.enhanced, "5.1.1");
    assert.deepEqual(
      notes[0]!.tried[0]!.transcript!.filter(({ line }) => line.startsWith("RCPT"))
        .map(({ line }) => line),
      ["RCPT TO:<ann@example.net>"],
    );
  });

  it("that one host puts off go on to the next alone, and what was delivered is on disk by then", async () => {
    world.domain("example.net", [10, "mx1.example.net"], [20, "mx2.example.net"]);
    await world.host("mx1.example.net", "192.0.2.1", refusing({ bob: "451 4.3.0 not now" }));
    const second = await world.host("mx2.example.net", "192.0.2.2");
    const { outcomes, notes } = await send("ann", "bob");
    assert.deepEqual(kinds(outcomes), ["ok", "ok"]);
    assert.deepEqual(
      second.commands.filter((line) => line.startsWith("RCPT")).map((line) => line.slice(0, 26)),
      ["RCPT TO:<bob@example.net>"],
    );
    assert.deepEqual(world.diary, [
      "dial 192.0.2.1",
      "settle ann@example.net",
      "dial 192.0.2.2",
    ]);
    assert.deepEqual(notes.map(({ tried }) => tried.length), [1, 2]);
    assert.equal(notes[1]!.settled, undefined);
  });

  it("that are too many for one transaction have another over the same session", async () => {
    world.domain("example.net", [10, "mx1.example.net"]);
    let taken = 0;
    const server = await world.host("mx1.example.net", "192.0.2.1", {
      answers: {
        MAIL: () => {
          taken = 0;
          return "250 2.1.0 Ok";
        },
        RCPT: () => ++taken > 2 ? "452 4.5.3 Too many recipients" : "250 2.1.5 Ok",
      },
    });
    const { outcomes, notes } = await send("a", "b", "c", "d", "e");
    assert.deepEqual(kinds(outcomes), ["ok", "ok", "ok", "ok", "ok"]);
    assert.equal(world.diary.filter((line) => line.startsWith("dial")).length, 1);
    assert.equal(server.commands.filter((line) => line.startsWith("MAIL")).length, 3);
    assert.deepEqual(notes.map(({ tried }) => tried.length), [1, 1, 2, 2, 3]);
    assert.deepEqual(notes[4]!.tried.map(({ reused }) => reused), [undefined, true, true]);
  });

  it("whose address cannot be put in a command fails without the others", async () => {
    world.domain("example.net", [10, "mx1.example.net"]);
    await world.host("mx1.example.net", "192.0.2.1");
    const { outcomes } = await send("ann", "b> c", "dave");
    assert.deepEqual(kinds(outcomes), ["ok", "no", "ok"]);
  });

  it("all fail when nobody is there", async () => {
    world.domain("example.net", [10, "mx1.example.net"]);
    world.names.set("mx1.example.net", { A: ["192.0.2.9"] });
    const { outcomes, notes } = await send("ann", "bob");
    assert.deepEqual(kinds(outcomes), ["later", "later"]);
    assert.deepEqual(notes.map(({ tried }) => tried.length), [1, 1]);
    assert.equal(world.diary.length, 1);
  });
});

describe("the transcript of one of several recipients", () => {
  const dialogue = (pipelined: boolean): { at: number; who: "C" | "S"; line: string }[] => {
    const commands = ["MAIL FROM:<s@x>", "RCPT TO:<a@x>", "RCPT TO:<b@x>", "DATA"];
    const replies = [["250 sender ok"], ["250 a ok"], ["550-b is", "550 not here"], ["354 go on"]];
    const said = (who: "C" | "S", lines: string[]) => lines.map((line) => ({ at: 1, who, line }));
    const middle = pipelined
      ? [...said("C", commands), ...said("S", replies.flat())]
      : commands.flatMap((line, n) => [...said("C", [line]), ...said("S", replies[n]!)]);
    return [
      ...said("S", ["220 hello"]),
      ...said("C", ["EHLO us"]),
      ...said("S", ["250-mx", "250 SIZE"]),
      ...middle,
      ...said("C", ["[message: 10 octets]"]),
      ...said("S", ["250 taken"]),
    ];
  };
  for (const pipelined of [false, true]) {
    it(`leaves out the others', ${pipelined ? "pipelined" : "one by one"}`, () => {
      const own = transcriptOf(dialogue(pipelined), 1).map(({ line }) => line);
      assert.deepEqual(own.filter((line) => /\ba\b|<a@/.test(line)), []);
      assert.deepEqual(own.filter((line) => line.includes("550")), ["550-b is", "550 not here"]);
      const first = transcriptOf(dialogue(pipelined), 0).map(({ line }) => line);
      assert.deepEqual(first.filter((line) => line.startsWith("550")), []);
      assert.deepEqual(first.slice(-2), ["[message: 10 octets]", "250 taken"]);
      assert.equal(first.length, dialogue(pipelined).length - 3);
    });
  }
});
