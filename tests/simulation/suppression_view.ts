/** The suppression list over the virtual disk; asked at once, as the real one is. */
import {
  suppressionId,
  suppressionProjection,
  type SuppressionRow,
  type SuppressionView,
} from "../../events/projections/suppression.ts";
import type { Disk } from "./disk.ts";

export class VirtualSuppressionView implements SuppressionView {
  constructor(readonly disk: Disk) {}

  list(limit: number, after = ""): SuppressionRow[] {
    return [...this.#rows().values()]
      .filter(({ id }) => id > after)
      .sort((a, b) => a.id < b.id ? -1 : 1)
      .slice(0, limit);
  }

  get(address: string, account: string | null): SuppressionRow | undefined {
    return this.#rows().get(suppressionId(address, account));
  }

  #rows(): ReadonlyMap<string, SuppressionRow> {
    const error = this.disk.readError();
    if (error) throw error;
    return this.disk.table(suppressionProjection.name).rows as Map<string, SuppressionRow>;
  }
}
