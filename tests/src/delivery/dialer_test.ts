import { Buffer } from "node:buffer";
import assert from "node:assert/strict";
import net from "node:net";
import { afterEach, describe, it } from "@std/testing/bdd";
import { SocketDialer } from "../../../src/delivery/dialer.ts";
import { type Connection, DialError } from "../../../src/ports.ts";

const never = new AbortController().signal;
let server: net.Server | undefined;
let peers: net.Socket[] = [];

afterEach(async () => {
  for (const peer of peers) peer.destroy();
  peers = [];
  await new Promise<void>((resolve) => server ? server.close(() => resolve()) : resolve());
  server = undefined;
});

/** Listens, connects, and gives both ends. */
async function pair(): Promise<{ connection: Connection; peer: net.Socket }> {
  const accepted = Promise.withResolvers<net.Socket>();
  server = net.createServer((socket) => {
    socket.on("error", () => {});
    peers.push(socket);
    accepted.resolve(socket);
  });
  await new Promise<void>((resolve) => server!.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as net.AddressInfo;
  const connection = await new SocketDialer().connect({ address: "127.0.0.1", port }, never);
  return { connection, peer: await accepted.promise };
}

const dialFails = async (port: number, signal: AbortSignal, kind: DialError["kind"]) => {
  const dialling = new SocketDialer().connect({ address: "127.0.0.1", port }, signal);
  await assert.rejects(dialling, (error) => error instanceof DialError && error.kind === kind);
};

describe("dialling", () => {
  it("tells both ends", async () => {
    const { connection, peer } = await pair();
    assert.deepEqual(connection.remote, { address: "127.0.0.1", port: peer.localPort });
    assert.deepEqual(connection.local, { address: "127.0.0.1", port: peer.remotePort });
    connection.close();
  });

  it("is refused where nobody listens", async () => {
    const { connection, peer } = await pair();
    const port = peer.localPort!;
    connection.close();
    await new Promise<void>((resolve) => server!.close(() => resolve()));
    server = undefined;
    await dialFails(port, never, "refused");
  });

  it("ends when it is canceled, before or meanwhile, and says why", async () => {
    const { connection, peer } = await pair();
    const port = peer.localPort!;
    await dialFails(port, AbortSignal.abort(), "canceled");
    const late = new DialError("timeout", "too late");
    await dialFails(port, AbortSignal.abort(late), "timeout");
    const abort = new AbortController();
    const dialling = dialFails(port, abort.signal, "canceled");
    abort.abort();
    await dialling;
    connection.close();
  });
});

describe("a connection", () => {
  it("gives what the peer sends, and null at its end", async () => {
    const { connection, peer } = await pair();
    peer.write("one");
    assert.equal(Buffer.from((await connection.read())!).toString(), "one");
    const waiting = connection.read();
    peer.end("two");
    assert.equal(Buffer.from((await waiting)!).toString(), "two");
    assert.equal(await connection.read(), null);
    assert.equal(await connection.read(), null);
    connection.close();
  });

  it("gives what came before a reset, then fails", async () => {
    const { connection, peer } = await pair();
    peer.write("421 closing");
    assert.ok(await connection.read());
    const waiting = connection.read();
    peer.resetAndDestroy();
    await assert.rejects(waiting, /reset|closed/);
    await assert.rejects(connection.write(Uint8Array.of(1)));
  });

  it("fails every waiting and later call once it is closed", async () => {
    const { connection } = await pair();
    const waiting = connection.read();
    connection.close();
    connection.close();
    await assert.rejects(waiting, /closed/);
    await assert.rejects(connection.read(), /closed/);
    await assert.rejects(connection.write(Uint8Array.of(1)), /closed/);
    await assert.rejects(connection.startTls({}), /closed/);
  });

  it("holds a peer back that sends faster than it is read", async () => {
    const { connection, peer } = await pair();
    const size = 32 * 1024 * 1024;
    peer.write(Buffer.alloc(size, 1));
    await new Promise((resolve) => setTimeout(resolve, 40));
    assert.ok(peer.writableLength > 0, "the peer could get rid of everything");
    let read = 0;
    while (read < size) {
      const octets = await connection.read();
      assert.ok(octets && octets.length > 0 && octets.length <= 64 * 1024);
      read += octets.length;
    }
    assert.equal(read, size);
    connection.close();
  });

  it("waits with writing until the peer reads, and fails when it goes away instead", async () => {
    const { connection, peer } = await pair();
    peer.pause();
    let taken = 0;
    const writing = (async () => {
      for (; taken < 1000; taken++) await connection.write(Buffer.alloc(64 * 1024));
    })();
    const failed = assert.rejects(writing);
    await new Promise((resolve) => setTimeout(resolve, 40));
    assert.ok(taken < 1000, "64 MiB were taken by nobody");
    peer.destroy();
    await failed;
    connection.close();
  });

  it("closes when the handshake fails", async () => {
    const { connection, peer } = await pair();
    peer.once("data", () => peer.write("this is not TLS\r\n"));
    await assert.rejects(connection.startTls({ serverName: "localhost" }));
    await assert.rejects(connection.read());
  });

  it("can be closed during the handshake", async () => {
    const { connection } = await pair();
    const handshake = connection.startTls({});
    setTimeout(() => connection.close(), 10);
    await assert.rejects(handshake);
  });
});
