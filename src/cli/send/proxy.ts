/**
 * `sendmail -bs`: SMTP on standard input and output, passed on to the listener of the queue and back,
 * octet by octet. The listener is the server, its word and its checks count.
 */
import type { Clock } from "../../../actors/ports.ts";
import type { SmarthostTransportConfig } from "../../config/types.ts";
import { type Dialer, DialError } from "../../ports.ts";
import { EX_OK, EX_TEMPFAIL, EX_UNAVAILABLE } from "./exit_codes.ts";

export interface ProxyPorts {
  readonly clock: Clock;
  readonly dialer: Dialer;
  readonly stdin: AsyncIterable<Uint8Array>;
  readonly stdout: (octets: Uint8Array) => Promise<void>;
}

const CONNECT = 30_000;
/** Milliseconds that the server has for its last words when standard input has ended. */
const LINGER = 10_000;

/** @returns the exit code */
export async function proxy(
  server: SmarthostTransportConfig,
  ports: ProxyPorts,
  say: (text: string) => void,
): Promise<number> {
  const { host: address, port, type, auth } = server;
  if (type !== "smtp" || auth) {
    say("-bs: it passes SMTP on as it is, and the server of the config wants a login or TLS");
    return EX_UNAVAILABLE;
  }
  let connection;
  try {
    connection = await ports.dialer.connect({ address, port }, AbortSignal.timeout(CONNECT));
  } catch (error) {
    if (!(error instanceof DialError)) throw error;
    say(`${address}:${port} cannot be reached: ${error.message}`);
    await ports.stdout(new TextEncoder().encode("421 4.3.2 the queue cannot be reached\r\n"));
    return EX_TEMPFAIL;
  }
  let cancel = () => {};
  const commands = (async () => {
    for await (const octets of ports.stdin) await connection.write(octets);
    // Who leaves without QUIT has left all the same.
    cancel = ports.clock.timer(LINGER, () => connection.close());
    await connection.write(new TextEncoder().encode("QUIT\r\n"));
  })();
  commands.catch(() => {}); // the server has closed the session; its last words are read below
  try {
    for (let octets; (octets = await connection.read());) await ports.stdout(octets);
  } catch {
    // It was cut: the client sees as much.
  } finally {
    cancel();
    connection.close();
  }
  return EX_OK;
}
