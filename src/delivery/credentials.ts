/**
 * What a transport logs in with: the password or token of its config, from where the config says.
 *
 * A file is read for every login, so that it can be replaced while the queue runs. What a command
 * prints is kept for a while, or until the server refuses it. Bounded in time and octets.
 */
import { Buffer } from "node:buffer";
import { randomBytes } from "node:crypto";
import type { Clock } from "../../actors/ports.ts";
import { formatPath } from "../config/problems.ts";
import type { AuthConfig, TransportConfig } from "../config/types.ts";
import { CredentialsUnavailable, type Login } from "../smtp/login.ts";
import type { ClientCredentials } from "../smtp/sasl/client.ts";
import { remembering } from "../smtp/sasl/scram.ts";

/** The system's files and commands; both throw an Error with one line that says what is wrong. */
export interface SecretReader {
  file(path: string): Promise<string>;
  /** Standard output of the command, which is ended when `signal` aborts. */
  command(argv: readonly string[], signal: AbortSignal): Promise<string>;
}

/** Milliseconds that a command may take, and that what it printed is used. */
const COMMAND_TIMEOUT = 30_000;
const TOKEN_KEPT = 5 * 60_000;
/** Octets of a file or of the output of a command. */
const MAX_SECRET = 16 * 1024;

/** @param host and port of the server, which OAUTHBEARER tells it (RFC 7628, section 3.1) */
export function loginOf(
  auth: AuthConfig,
  { host, port }: { readonly host: string; readonly port: number },
  clock: Clock,
  read: SecretReader,
): Login {
  const { username, mechanisms, insecurePlain, secret } = auth;
  const kind = secret.kind === "token_command" || secret.kind === "token_file"
    ? "token"
    : "password";
  let kept: { readonly token: string; readonly until: number } | undefined;

  const take = async (signal: AbortSignal): Promise<string> => {
    switch (secret.kind) {
      case "password":
        return secret.value.reveal();
      case "password_file":
      case "token_file":
        return firstLine(await read.file(secret.path));
      case "token_command": {
        if (kept && kept.until > clock.monotonic()) return kept.token;
        const token = firstLine(await within(clock, read, secret.argv, signal));
        kept = { token, until: clock.monotonic() + TOKEN_KEPT };
        return token;
      }
    }
  };

  return {
    username,
    kind,
    insecurePlain,
    ...(mechanisms ? { mechanisms } : {}),
    async credentials(signal): Promise<ClientCredentials> {
      let text: string;
      try {
        text = await take(signal);
      } catch (error) {
        const why = error instanceof Error ? error.message : String(error);
        throw new CredentialsUnavailable(`${secret.kind}: ${why}`);
      }
      if (text === "") throw new CredentialsUnavailable(`${secret.kind}: its first line is empty`);
      return kind === "token"
        ? { kind, username, token: text, host, port }
        : { kind, username, password: text };
    },
    refused: () => {
      kept = undefined;
    },
    random: (length) => new Uint8Array(randomBytes(length)),
    saltedPassword: remembering(),
  };
}

/** A line for each `token_command` that this process may not run: to be said before it is needed. */
export function forbiddenCommands(transports: Iterable<TransportConfig>): string[] {
  return [...transports].flatMap((transport): string[] => {
    if (!("auth" in transport) || transport.auth?.secret.kind !== "token_command") return [];
    const [program = ""] = transport.auth.secret.argv;
    if (mayRun(program)) return [];
    const at = formatPath(["transports", transport.name, "auth", "token_command"]);
    return [
      `config: ${at}: this process may not run programs; start it with ` +
      '"deno task serve:commands", or have the token written to a file and use token_file',
    ];
  });
}

const mayRun = (program: string): boolean =>
  Deno.permissions.querySync({ name: "run", command: program }).state === "granted";

/** A secret is a line: editors and programs end it with one line end, which is not part of it. */
const firstLine = (text: string): string => text.split(/\r?\n/, 1)[0]!;

async function within(
  clock: Clock,
  read: SecretReader,
  argv: readonly string[],
  signal: AbortSignal,
): Promise<string> {
  const abort = new AbortController();
  const cancel = clock.timer(COMMAND_TIMEOUT, () => {
    abort.abort(new Error(`the command did not end within ${COMMAND_TIMEOUT / 1000} s`));
  });
  const onAbort = () => abort.abort(new Error("canceled"));
  if (signal.aborted) onAbort();
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    return await read.command(argv, abort.signal);
  } catch (error) {
    throw abort.signal.aborted ? abort.signal.reason : error;
  } finally {
    cancel();
    signal.removeEventListener("abort", onAbort);
  }
}

/** Files and commands of this machine. What a command says on standard error goes to ours. */
export const systemSecrets: SecretReader = {
  async file(path) {
    try {
      using file = await Deno.open(path);
      return await readBounded(file.readable, `${path} is longer than ${MAX_SECRET} octets`);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) throw new Error(`there is no file ${path}`);
      if (error instanceof Deno.errors.PermissionDenied) throw new Error(`${path} is not ours`);
      throw error;
    }
  },
  async command([program, ...args], signal) {
    if (program === undefined) throw new Error("the command is empty");
    if (!mayRun(program)) throw new Error("this process may not run programs");
    const child = new Deno.Command(program, {
      args,
      stdin: "null",
      stdout: "piped",
      stderr: "inherit",
      signal,
    }).spawn();
    try {
      const text = await readBounded(child.stdout, "the command prints more than a token");
      const { code } = await child.status;
      if (code !== 0) throw new Error(`${program} exited with ${code}`);
      return text;
    } catch (error) {
      try {
        child.kill("SIGKILL");
      } catch {
        // It has ended by itself.
      }
      await child.status;
      throw error;
    }
  },
};

async function readBounded(stream: ReadableStream<Uint8Array>, tooLong: string): Promise<string> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of stream) {
    size += chunk.length;
    if (size > MAX_SECRET) throw new Error(tooLong);
    chunks.push(chunk);
  }
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(Buffer.concat(chunks));
  } catch {
    throw new Error("it is not UTF-8 text");
  }
}
