/**
 * Merkle tree hash of RFC 6962, section 2.1, grown leaf by leaf.
 *
 * Only the roots of the complete subtrees on the right edge are kept, so n leaves need O(log n)
 * memory. A tree is a value: adding gives a new one, and a failed commit simply keeps the old one.
 */
import { createHash } from "node:crypto";

interface Subtree {
  readonly leaves: number;
  readonly root: Uint8Array;
}

export class MerkleTree {
  static readonly EMPTY: MerkleTree = new MerkleTree([]);
  private constructor(readonly subtrees: readonly Subtree[]) {}

  /** The tree with leaves added; a leaf's content is the octets of an event's hash (hex). */
  add(hashes: Iterable<string>): MerkleTree {
    const subtrees = [...this.subtrees];
    for (const hash of hashes) {
      let last: Subtree = { leaves: 1, root: leafHash(hash) };
      for (;;) {
        const left = subtrees.at(-1);
        if (left?.leaves !== last.leaves) break;
        subtrees.pop();
        last = { leaves: 2 * last.leaves, root: nodeHash(left.root, last.root) };
      }
      subtrees.push(last);
    }
    return new MerkleTree(subtrees);
  }

  get size(): number {
    return this.subtrees.reduce((sum, subtree) => sum + subtree.leaves, 0);
  }

  /** The tree hash in hex; of an empty tree the hash of nothing. */
  root(): string {
    const [last, ...rest] = [...this.subtrees].reverse();
    if (!last) return createHash("sha256").digest("hex");
    const root = rest.reduce((right, left) => nodeHash(left.root, right), last.root);
    return root.toHex();
  }
}

function leafHash(hash: string): Uint8Array {
  const content = new Uint8Array(1 + HASH);
  content[0] = 0x00;
  try {
    content.subarray(1).setFromHex(hash);
  } catch {
    // Not a hash: what is verified may be forged. Any other leaf is as wrong as it should be.
  }
  return createHash("sha256").update(content).digest();
}

function nodeHash(left: Uint8Array, right: Uint8Array): Uint8Array {
  const content = new Uint8Array(1 + 2 * HASH);
  content[0] = 0x01;
  content.set(left, 1);
  content.set(right, 1 + HASH);
  return createHash("sha256").update(content).digest();
}

/** Octets of a SHA-256. */
const HASH = 32;
