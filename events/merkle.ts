/**
 * Merkle tree hash of RFC 6962, section 2.1, grown leaf by leaf.
 *
 * Only the roots of the complete subtrees on the right edge are kept, so n leaves need O(log n)
 * memory. A tree is a value: adding gives a new one, and a failed commit simply keeps the old one.
 */
import { Buffer } from "node:buffer";
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
      let last: Subtree = { leaves: 1, root: leafHash(Buffer.from(hash, "hex")) };
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
    return Buffer.from(root).toString("hex");
  }
}

const leafHash = (content: Uint8Array): Uint8Array =>
  createHash("sha256").update(LEAF).update(content).digest();

const nodeHash = (left: Uint8Array, right: Uint8Array): Uint8Array =>
  createHash("sha256").update(NODE).update(left).update(right).digest();

const LEAF = Uint8Array.of(0);
const NODE = Uint8Array.of(1);
