/** Exit codes of sysexits.h, which callers of sendmail go by. */
export const EX_OK = 0;
/** Asked for in the wrong way. */
export const EX_USAGE = 64;
/** The message is not fit to be sent. */
export const EX_DATAERR = 65;
/** A recipient does not exist. */
export const EX_NOUSER = 67;
/** Refused for good. */
export const EX_UNAVAILABLE = 69;
/** A fault of ours. */
export const EX_SOFTWARE = 70;
/** Standard input cannot be read. */
export const EX_IOERR = 74;
/** Not now. */
export const EX_TEMPFAIL = 75;
/** Our login is refused, or what it may send. */
export const EX_NOPERM = 77;
/** The config cannot be used. */
export const EX_CONFIG = 78;
