/**
 * The login of a session: AUTH with the most secure mechanism that both sides have (RFC 4954).
 *
 * What it sends is kept from the transcript, and so is a reply that repeats it. A server that
 * cannot prove itself where its mechanism asks for it, or breaks the protocol, ends the session.
 */
import { chooseMechanism } from "./sasl/choose.ts";
import { type ClientCredentials, ClientExchange, clientMechanism } from "./sasl/client.ts";
import { SaslError } from "./sasl/error.ts";
import type { ChannelBinding, MechanismName, RandomBytes } from "./sasl/mechanism.ts";
import type { SaltedPassword } from "./sasl/scram.ts";
import type { Dialogue } from "./dialogue.ts";
import type { Extensions } from "./envelope.ts";
import type { SmtpReply } from "./reply.ts";
import { DialogueEnded, refused } from "./verdict.ts";

/** As whom to log in, and how. */
export interface Login {
  readonly username: string;
  readonly kind: ClientCredentials["kind"];
  /** Only these, in this order; absent: the most secure one that both sides have. */
  readonly mechanisms?: readonly MechanismName[];
  /** Secrets may go over what is not verified TLS. */
  readonly insecurePlain: boolean;
  /**
   * What to log in with; asked for once per login, after the mechanism is chosen.
   * @throws CredentialsUnavailable
   */
  credentials(signal: AbortSignal): Promise<ClientCredentials>;
  /** The server has refused what `credentials` gave. */
  refused(): void;
  readonly random: RandomBytes;
  readonly saltedPassword: SaltedPassword;
}

/** There is nothing to log in with: a file that is gone, a command that fails. Holds no secret. */
export class CredentialsUnavailable extends Error {
  override readonly name = "CredentialsUnavailable";
}

/** Who is logged in, as it goes into the log. */
export interface LoggedIn {
  readonly mechanism: MechanismName;
  readonly username: string;
}

/** What the session is worth. */
export interface LoginSession {
  readonly extensions: Extensions;
  readonly tls: boolean;
  readonly verified: boolean;
  readonly channelBinding?: ChannelBinding | undefined;
}

/** Challenges of one login at most; no mechanism here has more than two. */
const MAX_CHALLENGES = 4;

/**
 * Logs in.
 * @param ms for each reply
 * @throws DialogueEnded
 */
export async function logIn(
  dialogue: Dialogue,
  login: Login,
  session: LoginSession,
  ms: number,
  signal: AbortSignal,
): Promise<LoggedIn> {
  const { username, kind, mechanisms, insecurePlain, random, saltedPassword } = login;
  const { extensions, tls, verified, channelBinding } = session;
  const choice = chooseMechanism({
    offered: extensions.get("AUTH")?.split(/\s+/).filter(Boolean) ?? [],
    tls: { active: tls, verified, channelBinding: channelBinding !== undefined },
    credentials: kind,
    insecurePlain,
    ...(mechanisms ? { configured: mechanisms } : {}),
  });
  if (choice.kind === "none") throw noLogin(choice.reason);
  const { mechanism, bindingNotOffered } = choice;
  const who = `the login as "${username}" by ${mechanism}`;

  let exchange: ClientExchange;
  const secrets: string[] = [];
  try {
    const credentials = await login.credentials(signal);
    secrets.push(credentials.kind === "token" ? credentials.token : credentials.password);
    exchange = new ClientExchange(clientMechanism(mechanism, credentials, {
      random,
      bindingNotOffered,
      saltedPassword,
      ...(channelBinding ? { channelBinding } : {}),
    }));
  } catch (error) {
    if (!(error instanceof SaslError || error instanceof CredentialsUnavailable)) throw error;
    throw noLogin(`${who} cannot be made: ${error.message}`);
  }

  const receive = () => dialogue.reply("login", ms, (reply) => shown(reply, secrets).lines);
  const command = exchange.command();
  const [, , initial] = command.split(" ");
  if (initial !== undefined) secrets.push(initial);
  dialogue.secret(command, `AUTH ${mechanism}${initial === undefined ? "" : " [secret]"}`);
  for (let challenges = 0;; challenges++) {
    const reply = await receive();
    if (reply.code === 334) {
      try {
        if (challenges === MAX_CHALLENGES) {
          throw new SaslError("out-of-order", "the server does not stop asking");
        }
        const answer = await exchange.answer(reply.text);
        secrets.push(answer);
        dialogue.secret(answer, "[secret]");
      } catch (error) {
        if (!(error instanceof SaslError)) throw error;
        // RFC 4954, section 4: the client cancels; what the server says to that is of no interest.
        dialogue.command("*");
        await receive();
        throw noLogin(`${who} was given up: ${error.message}`);
      }
      continue;
    }
    if (reply.code === 235) {
      try {
        exchange.succeed();
      } catch (error) {
        if (!(error instanceof SaslError)) throw error;
        throw noLogin(`${who} was given up: ${error.message}`);
      }
      return { mechanism, username };
    }
    if (reply.code >= 500) login.refused();
    const because = exchange.refusal === undefined ? "" : ` (${exchange.refusal})`;
    throw new DialogueEnded({
      ...refused("login", shown(reply, secrets)),
      error: `${who} was refused${because}`,
    });
  }
}

/** RFC 3463 has 4.7.0 for security matters without a code of their own. */
const noLogin = (error: string): DialogueEnded =>
  new DialogueEnded({ result: "error", phase: "login", error, enhanced: "4.7.0" });

/** Characters from which on text is long enough to be looked for as a secret. */
const LEAST_SECRET = 4;

/** The reply as it may be seen: challenges say nothing, and secrets are not repeated. */
function shown(reply: SmtpReply, secrets: readonly string[]): SmtpReply {
  const { code } = reply;
  if (code === 334) return { code, text: "[challenge]", lines: ["334 [challenge]"] };
  const whole = reply.lines.join("\n");
  if (!secrets.some((one) => one.length >= LEAST_SECRET && whole.includes(one))) return reply;
  const text = "[left out: it repeats what we sent]";
  return { code, text, lines: [`${code} ${text}`] };
}
