/**
 * The real server as a child process: `deno task serve` with a data folder and ports of its own,
 * and the other tasks that read that folder.
 *
 * The command line is taken from deno.json and run without the task runner in between, so that a
 * signal, SIGKILL above all, hits the server itself.
 */
import { run, selfSigned } from "./postfix.ts";
import { closeQuietly, freePort, greets, until } from "./wait.ts";

const ROOT = new URL("../../", import.meta.url).pathname;

export interface ServeOptions {
  /** TOML that follows hostname, listeners and `[queue]`: routes and transports. */
  readonly routing: string;
  /** TOML of the `[queue]` section without its head. */
  readonly queue?: string;
  /** Offers STARTTLS with a self-signed certificate. */
  readonly tls?: boolean;
  /** An empty or used data folder; by default a new one that `remove` takes away. */
  readonly data?: string;
}

export interface Exit {
  readonly code: number;
  readonly signal: string | null;
}

/** A server that can be started, killed and started again on the same folder and ports. */
export class Server {
  readonly smtpPort = freePort();
  readonly httpPort = freePort();
  private child: Deno.ChildProcess | undefined;
  private exited: Promise<Exit> | undefined;
  private said = "";

  private constructor(
    readonly directory: string,
    readonly data: string,
    private readonly ownsData: boolean,
  ) {}

  /** Writes the configuration; starts nothing yet. */
  static async prepare(options: ServeOptions): Promise<Server> {
    const directory = await Deno.makeTempDir({ prefix: "postledger-" });
    const data = options.data ?? `${directory}/data`;
    if (options.data === undefined) await Deno.mkdir(data, { mode: 0o700 });
    const server = new Server(directory, data, options.data === undefined);
    let tls = "";
    if (options.tls) {
      await selfSigned(directory);
      tls = `cert_file = "${directory}/cert.pem"\nkey_file = "${directory}/key.pem"\n`;
    }
    await Deno.writeTextFile(
      server.config,
      `hostname = "queue.example.com"

[listen.local]
protocol = "smtp"
address = "127.0.0.1:${server.smtpPort}"
${tls}
[listen.web]
protocol = "http"
address = "127.0.0.1:${server.httpPort}"

[queue]
${options.queue ?? 'retry = ["1s"]\nmax_attempts = 1000\ndelay_notice_after = 1000\n'}
${options.routing}
`,
    );
    return server;
  }

  get config(): string {
    return `${this.directory}/postledger.toml`;
  }

  /** Pid of the running process. */
  get pid(): number {
    if (!this.child) throw new Error("the server is not running");
    return this.child.pid;
  }

  get running(): boolean {
    return this.child !== undefined;
  }

  /** What it printed, on both streams, since the first start. */
  get output(): string {
    return this.said;
  }

  /** Starts the process and does not wait for it to be ready. */
  async spawn(): Promise<void> {
    if (this.child) throw new Error("the server is running already");
    const command = await task("serve", ["--config", this.config, "--data", this.data]);
    const child = new Deno.Command(command.program, {
      args: command.args,
      cwd: ROOT,
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.child = child;
    const reading = [this.read(child.stdout), this.read(child.stderr)];
    this.exited = (async () => {
      const status = await child.status;
      await Promise.all(reading);
      if (this.child === child) this.child = undefined;
      return { code: status.code, signal: status.signal };
    })();
  }

  /** Starts the process; resolves when its SMTP listener greets. @throws Error with its output */
  async start(ms = 20_000): Promise<void> {
    await this.spawn();
    await this.ready(ms);
  }

  /** Waits until the SMTP listener greets. @throws Error with its output when it does not */
  async ready(ms = 20_000): Promise<void> {
    let exit: Exit | undefined;
    this.exited?.then((status) => exit = status);
    const greeted = await until("the server's greeting", ms, async () => {
      if (exit) return "exited";
      return await greets(this.smtpPort) ? "greeted" : undefined;
    }).catch((error: Error) => error.message);
    if (greeted !== "greeted") {
      throw new Error(
        `the server did not start: ${greeted} ${JSON.stringify(exit)}\n${this.tail()}`,
      );
    }
  }

  /** SIGKILL, and waits for the end. */
  async kill(): Promise<void> {
    this.child?.kill("SIGKILL");
    await this.exited;
  }

  /** SIGTERM; resolves with how it ended. @throws Error when it has not within `ms` milliseconds */
  async stop(ms = 40_000): Promise<Exit> {
    if (!this.child || !this.exited) throw new Error("the server is not running");
    this.child.kill("SIGTERM");
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(
        () => reject(new Error(`SIGTERM did not end it in ${ms} ms\n${this.tail()}`)),
        ms,
      );
    });
    try {
      return await Promise.race([this.exited, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Ends the process in whatever way it takes, and removes what `prepare` made. */
  async remove(): Promise<void> {
    await this.kill();
    await Deno.remove(this.directory, { recursive: true });
    if (!this.ownsData) await Deno.remove(this.data, { recursive: true }).catch(() => {});
  }

  /** Peak resident memory in bytes (VmHWM). */
  async peakMemory(): Promise<number> {
    const status = await run("cat", [`/proc/${this.pid}/status`]);
    return Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1] ?? NaN) * 1024;
  }

  /** Processor time used so far, in seconds: user and system. */
  async cpuSeconds(): Promise<number> {
    const stat = await run("cat", [`/proc/${this.pid}/stat`]);
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return (Number(fields[11]) + Number(fields[12])) / 100;
  }

  /** GET of a path on the HTTP listener, with the token of the data folder. */
  async get(path: string): Promise<{ readonly status: number; readonly text: string }> {
    const token = await Deno.readTextFile(`${this.data}/api-token`).catch(() => "");
    const response = await fetch(`http://127.0.0.1:${this.httpPort}${path}`, {
      headers: { authorization: `Bearer ${token.trim()}` },
      signal: AbortSignal.timeout(10_000),
    });
    return { status: response.status, text: await response.text() };
  }

  /** Runs another task on this server's data folder. */
  async command(name: string, ...args: string[]): Promise<CommandResult> {
    return await runTask(name, [...args, "--data", this.data]);
  }

  private tail(): string {
    return this.said.slice(-4_000);
  }

  private async read(stream: ReadableStream<Uint8Array>): Promise<void> {
    const decoder = new TextDecoder();
    for await (const chunk of stream) {
      this.said = (this.said + decoder.decode(chunk, { stream: true })).slice(-1_000_000);
    }
  }
}

export interface CommandResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A task that has not ended after this many milliseconds is ended. */
const TASK_LIMIT = 180_000;

/** Runs a task of deno.json to its end. */
export async function runTask(name: string, args: readonly string[]): Promise<CommandResult> {
  const command = await task(name, args);
  const output = await new Deno.Command(command.program, {
    args: command.args,
    cwd: ROOT,
    stdin: "null",
    signal: AbortSignal.timeout(TASK_LIMIT),
  }).output();
  const text = (octets: Uint8Array) => new TextDecoder().decode(octets);
  return { code: output.code, stdout: text(output.stdout), stderr: text(output.stderr) };
}

/**
 * The lines that a task prints, as it prints them.
 * @throws Error at the end, with what it said on stderr, when it exits other than 0
 */
export async function* taskLines(name: string, args: readonly string[]): AsyncGenerator<string> {
  const command = await task(name, args);
  const child = new Deno.Command(command.program, {
    args: command.args,
    cwd: ROOT,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
    signal: AbortSignal.timeout(TASK_LIMIT),
  }).spawn();
  const stderr = new Response(child.stderr).text();
  let rest = "";
  for await (const chunk of child.stdout.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + chunk).split("\n");
    rest = lines.pop() ?? "";
    yield* lines;
  }
  if (rest !== "") yield rest;
  const { code } = await child.status;
  if (code !== 0) throw new Error(`deno task ${name} exited ${code}: ${await stderr}`);
}

/** The command line of a task, as far as this runner goes: `deno run …` without shell syntax. */
async function task(
  name: string,
  args: readonly string[],
): Promise<{ readonly program: string; readonly args: string[] }> {
  const { tasks } = JSON.parse(await Deno.readTextFile(`${ROOT}deno.json`)) as {
    tasks: Record<string, string | { command: string }>;
  };
  const found = tasks[name];
  if (found === undefined) throw new Error(`deno.json has no task "${name}"`);
  const words = (typeof found === "string" ? found : found.command).split(/\s+/);
  if (words[0] !== "deno") throw new Error(`the task "${name}" does not begin with deno`);
  return { program: "deno", args: [...words.slice(1), ...args] };
}

/** Whether a TCP connection to the port is accepted. */
export async function accepts(port: number): Promise<boolean> {
  try {
    closeQuietly(await Deno.connect({ hostname: "127.0.0.1", port }));
    return true;
  } catch {
    return false;
  }
}

/** Routing that sends everything to one port on 127.0.0.1. */
export const everythingTo = (port: number): string => `
[[routes]]
transport = "next"

[transports.next]
type = "smtp"
host = "127.0.0.1"
port = ${port}
`;
