/**
 * Checkpoints: signed statements that cover all events between two positions.
 *
 * The hash chain ties each stream together, and says nothing when a stream is dropped whole. A
 * checkpoint counts all events of a span of the log, has a Merkle root over their hashes, names
 * the checkpoint before it, and is signed with the installation's Ed25519 key.
 */
import { Buffer } from "node:buffer";
import { type KeyObject, sign, verify } from "node:crypto";
import { canonicalJson, GENESIS, sha256 } from "./chain.ts";
import type { Checkpoint, RawEvent } from "./engine.ts";
import { MerkleTree } from "./merkle.ts";

/** A checkpoint is due when this many events are not covered … */
export const CHECKPOINT_EVENTS = 4096;
/** … or, in milliseconds, when the oldest of them has waited this long. */
export const CHECKPOINT_INTERVAL = 60_000;

/** Signs with the installation's key. Returns base64. */
export interface Signer {
  sign(text: string): string;
}

export const signerOf = (privateKey: KeyObject): Signer => ({
  sign: (text) => sign(null, Buffer.from(text), privateKey).toString("base64"),
});

/** Whether the signature of a checkpoint was made with the key's other half. */
export function signedBy(checkpoint: Checkpoint, publicKey: KeyObject): boolean {
  const { signature, ...statement } = checkpoint;
  try {
    return verify(
      null,
      Buffer.from(canonicalJson(statement)),
      publicKey,
      Buffer.from(signature, "base64"),
    );
  } catch {
    return false;
  }
}

/** What the next checkpoint names as `prev`. */
export const checkpointHash = (checkpoint: Checkpoint): string => sha256(canonicalJson(checkpoint));

/**
 * The events since the last checkpoint, summed up. A value: `add` gives a new one, so that a
 * commit that fails leaves the old one standing.
 */
export class Uncovered {
  private constructor(
    private readonly last: Checkpoint | undefined,
    private readonly tree: MerkleTree,
    private readonly position: number,
    /** Events that no checkpoint covers. */
    readonly count: number,
  ) {}

  static after(last: Checkpoint | undefined): Uncovered {
    return new Uncovered(last, MerkleTree.EMPTY, last?.to ?? 0, 0);
  }

  add(events: readonly RawEvent[]): Uncovered {
    if (events.length === 0) return this;
    return new Uncovered(
      this.last,
      this.tree.add(events.map((event) => event.hash)),
      events.at(-1)!.position,
      this.count + events.length,
    );
  }

  /** The checkpoint that covers them; there must be at least one. */
  checkpoint(time: string, signer: Signer): Checkpoint {
    const statement = {
      number: (this.last?.number ?? 0) + 1,
      from: (this.last?.to ?? 0) + 1,
      to: this.position,
      count: this.count,
      root: this.tree.root(),
      prev: this.last ? checkpointHash(this.last) : GENESIS,
      time,
    };
    return { ...statement, signature: signer.sign(canonicalJson(statement)) };
  }
}
