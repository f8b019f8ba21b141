/**
 * What the numbers of a benchmark depend on: the machine, and how long its disk takes to sync.
 */
import os from "node:os";
import { run } from "../peers/postfix.ts";

export interface Machine {
  readonly cpu: string;
  readonly cores: number;
  readonly memoryGiB: number;
  readonly kernel: string;
  readonly deno: string;
  /** Type of the file system that the data folders are on. */
  readonly fileSystem: string;
  /** Milliseconds of a 4 KiB write and fsync there, median of 50. */
  readonly fsync: number;
  /** Load average of the minute before: numbers from a machine with other work mean little. */
  readonly load: number;
}

/** @param directory on the file system that is measured */
export async function describeMachine(directory: string): Promise<Machine> {
  const cpus = os.cpus();
  return {
    cpu: cpus[0]?.model.trim() ?? "unknown",
    cores: cpus.length,
    memoryGiB: Math.round(os.totalmem() / 2 ** 30),
    kernel: `${os.type()} ${os.release()}`,
    deno: Deno.version.deno,
    fileSystem: await fileSystemOf(directory),
    fsync: await fsyncTime(directory),
    load: os.loadavg()[0] ?? 0,
  };
}

async function fileSystemOf(directory: string): Promise<string> {
  try {
    return (await run("df", ["--output=fstype", directory])).split("\n")[1]?.trim() ?? "unknown";
  } catch {
    return "unknown";
  }
}

async function fsyncTime(directory: string): Promise<number> {
  const path = await Deno.makeTempFile({ dir: directory });
  const times: number[] = [];
  const octets = new Uint8Array(4_096);
  const file = await Deno.open(path, { write: true });
  for (let n = 0; n < 50; n++) {
    const start = performance.now();
    await file.write(octets);
    await file.sync();
    times.push(performance.now() - start);
  }
  file.close();
  await Deno.remove(path);
  return percentile(times, 50);
}

/** The value below which `share` percent of the values lie; 0 without values. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  const at = Math.min(sorted.length - 1, Math.floor((sorted.length * share) / 100));
  return sorted[at] ?? 0;
}
