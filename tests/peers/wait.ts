/**
 * Waiting from outside: conditions that are polled up to a deadline, and ports that are free.
 */

export const sleep = (ms: number): Promise<void> => new Promise((done) => setTimeout(done, ms));

/**
 * Polls `probe` until it gives something other than undefined, null or false, and returns that.
 * What the probe throws counts as "not yet".
 * @throws Error naming `what`, and the probe's last error, when `ms` milliseconds have passed
 */
export async function until<T>(
  what: string,
  ms: number,
  probe: () => T | Promise<T>,
): Promise<Exclude<T, undefined | null | false>> {
  const deadline = performance.now() + ms;
  let last: unknown;
  while (true) {
    try {
      const found = await probe();
      if (found !== undefined && found !== null && found !== false) {
        return found as Exclude<T, undefined | null | false>;
      }
      last = undefined;
    } catch (error) {
      last = error;
    }
    if (performance.now() >= deadline) {
      const why = last instanceof Error ? `: ${last.message}` : "";
      throw new Error(`waited ${ms} ms in vain for ${what}${why}`);
    }
    await sleep(20);
  }
}

/**
 * A TCP port on 127.0.0.1 that nobody listens on. Taken from below the range that the system
 * hands to outgoing connections, so that a load test does not occupy it before the server does.
 */
export function freePort(): number {
  for (let tries = 0; tries < 200; tries++) {
    const port = 20_000 + Math.floor(Math.random() * 10_000);
    if (taken.has(port)) continue;
    try {
      Deno.listen({ hostname: "127.0.0.1", port }).close();
    } catch {
      continue;
    }
    taken.add(port);
    return port;
  }
  throw new Error("no free port on 127.0.0.1 between 20000 and 30000");
}
const taken = new Set<number>();

/** Whether something greets on that port like an SMTP server. */
export async function greets(port: number): Promise<boolean> {
  let conn: Deno.TcpConn;
  try {
    conn = await Deno.connect({ hostname: "127.0.0.1", port });
  } catch {
    return false;
  }
  const timer = setTimeout(() => closeQuietly(conn), 2_000);
  try {
    const buffer = new Uint8Array(512);
    const n = await conn.read(buffer);
    await conn.write(new TextEncoder().encode("QUIT\r\n"));
    return n !== null && new TextDecoder().decode(buffer.subarray(0, n)).startsWith("220");
  } catch {
    return false;
  } finally {
    clearTimeout(timer);
    closeQuietly(conn);
  }
}

/** Closes something that may be closed already. */
export function closeQuietly(closable: { close(): void }): void {
  try {
    closable.close();
  } catch {
    // closed before
  }
}
