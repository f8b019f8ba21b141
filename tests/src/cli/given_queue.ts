/** A data folder with a few messages, and a terminal that keeps what is written to it. */
import type { Fact } from "../../../events/catalogue.ts";
import {
  delivered,
  enqueued,
  failed,
  type Given,
  givenStore,
  smallBody,
  START,
  started,
} from "../../events/given.ts";
import type { Terminal } from "../../../src/cli/terminal.ts";

/** Delivered at the second attempt. */
export const DELIVERED = "01KGA000000000000000000001";
/** Waits for its second attempt; its sender and its server are up to no good. */
export const HOSTILE = "01KGA000000000000000000002";
/** Held by an operator. */
export const HELD = "01KGA000000000000000000003";
export const UNKNOWN = "01KGA00000000000000000000Z";

/** Clears a terminal, sets its title, and turns text around. */
export const EVIL = "\x1b[2J\x9b2J\x07\u202eevil\r\n\u{e0041}";

export const chosen = (transport: string, index?: number): Fact => ({
  type: "TransportChosen",
  data: {
    transport,
    type: transport === "direct" ? "direct" : "smtp",
    because: index === undefined
      ? { kind: "default" }
      : { kind: "route", scope: "global", index, matched: { to_domain: "example.net" } },
  },
});

const resolved: Fact = {
  type: "DestinationsResolved",
  data: {
    nextHop: "example.net",
    expanded: "example.net",
    dnssec: { nextHop: "unchecked", expanded: "unchecked" },
    by: "mx",
    hosts: [{ host: "mx1.example.net", preference: 10 }],
  },
};

const tried = (code: number, text: string): Fact => ({
  type: "HostTried",
  data: {
    host: "mx1.example.net",
    address: "192.0.2.1",
    port: 25,
    local: "192.0.2.99",
    tlsMode: "opportunistic",
    tls: { protocol: "TLSv1.3", cipher: "TLS_AES_256_GCM_SHA384" },
    verifiedBy: "none",
    reply: { code, text },
    result: code < 300 ? "ok" : "temperror",
    phases: { connect: 3, total: 12 },
    transcript: [{ at: 3, who: "S", line: `220 hello ${EVIL}` }],
  },
});

export async function givenQueue(): Promise<Given> {
  const given = await givenStore();
  const { store, clock } = given;
  const write = async (stream: string, ...batches: Fact[][]) => {
    let expectedVersion = 0;
    for (const facts of batches) {
      const body = smallBody(`body of ${stream}`);
      await store.append([{ stream, expectedVersion, facts }], expectedVersion === 0 ? [body] : []);
      expectedVersion += facts.length;
      await clock.advance(1_000);
    }
  };
  const to = (stream: string, data: Parameters<typeof enqueued>[0]) =>
    enqueued({ body: smallBody(`body of ${stream}`).sha256, size: 4_096, ...data });

  await write(
    DELIVERED,
    [to(DELIVERED, { account: "alice" })],
    [started(1), chosen("direct")],
    [resolved, tried(450, "4.7.1 greylisted"), failed(false, "greylisted")],
    [started(2), chosen("relay", 0)],
    [tried(250, "2.0.0 ok"), delivered],
  );
  await write(
    HOSTILE,
    [to(HOSTILE, {
      mailFrom: `"${EVIL}"@example.com`,
      rcptTo: "日本@example.org",
      messageId: `<${EVIL}>`,
    })],
    [started(1), chosen("direct")],
    [tried(450, EVIL), failed(false, `450 ${EVIL}`)],
  );
  await write(
    HELD,
    [to(HELD, { mailFrom: "", rcptTo: "bounce@example.com" })],
    [{ type: "Held", data: { who: "operator", why: "looked odd" } }],
  );
  return given;
}

export interface Written extends Terminal {
  readonly stdout: string;
  readonly stderr: string;
}

/** A terminal an hour after the messages came in. */
export function terminal(): Written {
  let stdout = "";
  let stderr = "";
  return {
    out: (text) => void (stdout += text),
    err: (text) => void (stderr += text),
    now: () => START + 3_600_000,
    get stdout() {
      return stdout;
    },
    get stderr() {
      return stderr;
    },
  };
}

export interface Ran {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a command with `--data` and gives what came of it. */
export async function ran(
  run: (args: readonly string[], terminal: Terminal) => Promise<number>,
  args: readonly string[],
): Promise<Ran> {
  const written = terminal();
  const code = await run(args, written);
  return { code, stdout: written.stdout, stderr: written.stderr };
}
