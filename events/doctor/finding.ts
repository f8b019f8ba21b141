/** What the doctor finds: what, where, what it means, and what can be done about it. */

export type FindingKind =
  | "database"
  | "schema"
  | "log"
  | "stream"
  | "projection"
  | "counter"
  | "body"
  | "archive"
  | "orphan"
  | "folder"
  | "space";

export interface DoctorFinding {
  readonly kind: FindingKind;
  /** A file, a message, a row: wherever somebody would go and look. */
  readonly where: string;
  readonly what: string;
  /** What follows from it. */
  readonly means: string;
  /** What --repair does about it; undefined when it can do nothing. */
  readonly repair?: string;
  /** Where --repair can do nothing: what the operator can. */
  readonly remedy?: string;
  /** Nothing is wrong; worth knowing. */
  readonly note?: boolean;
}

/** Is told of each finding as it is made. */
export type Report = (finding: DoctorFinding) => void;

/** The one thing to do about a log or a database that is damaged. */
export const FROM_BACKUP = "put the data folder back from a backup";
