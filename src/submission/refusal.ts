/**
 * Refusal: input that is turned away, said in the terms of SMTP (RFC 5321 reply code, RFC 3463
 * enhanced code). Other ways in translate it: an HTTP problem document, an exit code.
 */

export class Refusal extends Error {
  override readonly name = "Refusal";
  /**
   * @param code 4xx: the same input may be taken later; 5xx: never
   * @param text printable ASCII on one line; says what is wrong, and does not echo input
   */
  constructor(readonly code: number, readonly enhanced: string, text: string) {
    super(text);
  }
}
