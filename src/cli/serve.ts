/**
 * `deno task serve`: runs the queue as a process, from configuration to exit code.
 *
 *   SIGTERM, SIGINT   stop accepting, let running attempts end (30 s), flush, exit 0;
 *                     a second one exits at once: the log is as a crash would leave it, whole
 *   SIGHUP            reads the configuration again; a bad one leaves the running one in place
 *
 *   0  stopped as asked    1  could not start    2  bad option or configuration
 *   70 gave up: a part failed too often, and the last line says which and why (sysexits.h)
 */
import { loadConfig } from "../config/load.ts";
import { ConfigError } from "../config/problems.ts";
import type { Config } from "../config/types.ts";
import { forbiddenCommands } from "../delivery/credentials.ts";
import { Queue } from "../main.ts";
import { ServiceManager } from "../service_manager.ts";
import { lineLog, systemClock, systemRandom } from "../system.ts";
import type { Log } from "../../actors/ports.ts";
import {
  type Command,
  DATA_OPTIONS,
  type Parsed,
  processTerminal,
  runCommand,
  UsageError,
} from "./command.ts";

const GAVE_UP = 70;
/** More stray errors than this within a minute are a reason to give up. */
const STRAY_ERRORS = 10;

export const serve: Command = {
  usage: {
    name: "serve",
    synopsis: "[--config FILE] [--data DIR]",
    about: "Runs the queue. Without a config it works on loopback, with its data in ./data.",
    options: {
      ...DATA_OPTIONS,
      log: { value: "text|json", about: "format of the log on standard error (default: text)" },
    },
    maxArguments: 0,
  },
  async run(parsed, terminal) {
    const format = parsed.value("log") ?? "text";
    if (format !== "text" && format !== "json") {
      throw new UsageError(`--log: "${format}" is neither text nor json`);
    }
    const config = configOf(parsed);
    const log = lineLog((line) => terminal.err(`${line}\n`), systemClock, format);
    for (const warning of config.warnings ?? []) log.warn(warning);
    const end = Promise.withResolvers<number>();
    // Heard from the start: a signal while an attempt of the last run is being ended counts too.
    const signals = new Signals(log, end.resolve);
    const queue = await Queue.open(config, { clock: systemClock, random: systemRandom, log });
    watchStrayErrors(log, giveUp);

    function giveUp(cause: unknown): void {
      log.error("giving up", { reason: cause instanceof Error ? cause.message : String(cause) });
      end.resolve(GAVE_UP);
    }

    await queue.start(giveUp);
    const manager = new ServiceManager(systemClock, Deno.env);
    for (const { name, protocol, address, port } of queue.addresses) {
      const host = address.includes(":") ? `[${address}]` : address;
      log.info("listening", { listener: name, protocol, address: `${host}:${port}` });
    }
    log.info("ready", { hostname: config.hostname, data: config.dataDir, pid: Deno.pid });
    manager.ready();
    signals.onReload = () => reload(queue, parsed, log);
    const code = await end.promise;
    manager.stopping();
    await queue.stop();
    log.info("stopped", { code });
    return code;
  },
};

function configOf(parsed: Parsed): Config {
  const file = parsed.value("config");
  const dataDir = parsed.value("data");
  const config = loadConfig({
    env: Deno.env,
    ...(file === undefined ? {} : { file }),
    ...(dataDir === undefined ? {} : { dataDir }),
  });
  const forbidden = forbiddenCommands(config.transports.values());
  if (forbidden.length > 0) throw new ConfigError(forbidden);
  return config;
}

async function reload(queue: Queue, parsed: Parsed, log: Log): Promise<void> {
  try {
    const config = configOf(parsed);
    await queue.reload(config);
    for (const warning of config.warnings ?? []) log.warn(warning);
    log.info("configuration reloaded");
  } catch (cause) {
    const lines = cause instanceof ConfigError ? cause.lines : [String(cause)];
    for (const line of lines) log.error(line);
    log.error("configuration not reloaded; the one before stays in force");
  }
}

/** What the process does when it is told to. */
class Signals {
  onReload: () => Promise<void> = () => Promise.resolve();
  #stopping = false;
  #reloading: Promise<void> = Promise.resolve();

  constructor(log: Log, stop: (code: number) => void) {
    for (const signal of ["SIGTERM", "SIGINT"] as const) {
      Deno.addSignalListener(signal, () => {
        if (this.#stopping) {
          log.warn("second signal: exiting at once", { signal });
          Deno.exit(1);
        }
        this.#stopping = true;
        log.info("stopping", { signal });
        stop(0);
      });
    }
    Deno.addSignalListener("SIGHUP", () => {
      this.#reloading = this.#reloading.then(() => this.onReload());
    });
  }
}

/**
 * Errors that no part caught, a rejected promise that nobody waits for: they say that code is
 * wrong, and not whose. One is logged with its stack; many in a minute end the process.
 */
function watchStrayErrors(log: Log, giveUp: (cause: unknown) => void): void {
  let recent: number[] = [];
  const stray = (event: Event, cause: unknown) => {
    event.preventDefault();
    const stack = cause instanceof Error ? cause.stack : String(cause);
    log.error("an error that nothing caught", { stack });
    const now = systemClock.monotonic();
    recent = [...recent.filter((at) => now - at < 60_000), now];
    if (recent.length > STRAY_ERRORS) {
      giveUp(new Error(`more than ${STRAY_ERRORS} uncaught errors within a minute: ${cause}`));
    }
  };
  globalThis.addEventListener("unhandledrejection", (event) => stray(event, event.reason));
  globalThis.addEventListener("error", (event) => stray(event, event.error));
}

if (import.meta.main) Deno.exit(await runCommand(serve, Deno.args, processTerminal));
