/**
 * The table of classification: what refusals mean, as data.
 *
 * `EXACT` is asked first: texts so particular that they outweigh a generic or misused code. Then
 * `STATUS`, the enhanced codes (RFC 3463 and the IANA registry of SMTP Enhanced Status Codes), by
 * subject and detail. Then `TEXT`, patterns for replies without a code, or with one that says
 * nothing. Within each list the first entry that fits decides.
 */

import type { EventData } from "../../events/catalogue.ts";

export type FailureClass = NonNullable<EventData<"Failed">["class"]>;

type Patterns = readonly (readonly [RegExp, FailureClass])[];

export const EXACT: Patterns = [
  // Microsoft: "550 5.4.1 Recipient address rejected: Access denied" is an unknown recipient.
  [/recipient address rejected: access denied/, "unknown-user"],
  [/user unknown in (?:virtual|local|relay) (?:mailbox|alias|recipient) table/, "unknown-user"],
  [/\b(?:no such (?:user|recipient|mailbox)|user (?:unknown|doesn'?t exist))\b/, "unknown-user"],
  [/grey-?list/, "rate-limited"],
  [/receiving mail (?:too quickly|at a rate)/, "rate-limited"],
  [/temporarily deferred due to (?:user complaints|unexpected volume)/, "rate-limited"],
  [
    /(?:spf|dkim|dmarc)\b.{0,40}\b(?:fail|did not pass|not pass|reject|unauthenticated)/,
    "authentication",
  ],
  [
    /(?:fail|did not pass|not authenticated|unauthenticated).{0,60}\b(?:spf|dkim|dmarc)\b/,
    "authentication",
  ],
  [/\b(?:spamhaus|spamcop|barracuda ?central|sorbs|uceprotect|dnsbl|rbl)\b/, "policy"],
  [/(?:reverse dns|\bptr\b|\brdns\b|forward-confirmed)/, "authentication"],
];

/** By "subject.detail" of the enhanced code; the class digit does not matter. */
export const STATUS: Readonly<Record<string, FailureClass>> = {
  "1.1": "unknown-user",
  "1.2": "dns",
  "1.3": "unknown-user",
  "1.4": "unknown-user",
  "1.6": "unknown-user",
  "1.7": "policy",
  "1.8": "policy",
  "1.10": "dns",
  "2.1": "unknown-user",
  "2.2": "mailbox-full",
  "2.3": "content",
  "3.1": "mailbox-full",
  "3.2": "rate-limited",
  "3.4": "content",
  "3.5": "other",
  "4.1": "network",
  "4.2": "network",
  "4.3": "dns",
  "4.4": "dns",
  "4.5": "rate-limited",
  "4.6": "other",
  "4.7": "network",
  "5.3": "rate-limited",
  "6.1": "content",
  "6.2": "content",
  "6.3": "content",
  "6.6": "content",
  "6.7": "content",
  "7.2": "policy",
  "7.4": "tls",
  "7.5": "tls",
  "7.6": "tls",
  "7.7": "content",
  "7.8": "login",
  "7.9": "login",
  "7.10": "tls",
  "7.11": "tls",
  "7.13": "unknown-user",
  "7.14": "policy",
  "7.15": "policy",
  "7.16": "policy",
  "7.17": "policy",
  "7.18": "policy",
  "7.19": "policy",
  "7.20": "authentication",
  "7.21": "authentication",
  "7.22": "authentication",
  "7.23": "authentication",
  "7.24": "authentication",
  "7.25": "authentication",
  "7.26": "authentication",
  "7.27": "authentication",
  "7.28": "rate-limited",
  "7.30": "tls",
};

export const TEXT: Patterns = [
  [
    /(?:over|exceed(?:s|ed|ing)?).{0,20}quota|quota.{0,20}exceed|(?:mailbox|inbox).{0,10}\bfull/,
    "mailbox-full",
  ],
  [/insufficient (?:disk|system) (?:space|storage)|out of (?:disk )?space/, "mailbox-full"],
  [
    /(?:unknown|invalid|unrouteable|undeliverable) (?:user|recipient|mailbox|address|local[- ]part)/,
    "unknown-user",
  ],
  [
    // Within a sentence.
    /(?:user|recipient|mailbox|account|address|alias)(?:(?!\. ).){0,40}(?:not found|unknown|does ?n.t exist|does not exist|disabled|inactive|not known|no longer|suspended|invalid)/,
    "unknown-user",
  ],
  [
    /not a known user|no mailbox (?:here )?by that name|unknown to address|no such address/,
    "unknown-user",
  ],
  [
    /too many|rate[- ]?limit|throttl|try again later|too fast|unusual rate|exceeded.{0,30}(?:limit|rate)|slow down|temporarily (?:deferred|rejected|rate)/,
    "rate-limited",
  ],
  [
    /virus|malware|infected|spam|junk|unsolicited|bulk|phish|message (?:size|too (?:big|large))|size limit|attachment|malformed|content (?:rejected|denied)|bare (?:lf|cr)|line too long/,
    "content",
  ],
  [
    /black-?list|block(?:ed|list)|denylist|banned|reputation|relay(?:ing)? (?:access )?denied|not permitted|not allowed|access denied|policy|refused to talk|prohibited|administratively/,
    "policy",
  ],
  [/authentication (?:required|failed)|not authenticated|credentials|login/, "login"],
  [/starttls|\btls\b|certificate|encryption/, "tls"],
  [/dns|domain.{0,30}(?:not (?:found|exist|resolve)|unknown|does ?n.t)|no (?:mx|a) record/, "dns"],
  // The stock words of RFC 5321, section 4.2.3, for 550, which a server may say for policy reasons
  // too: what stands beside them goes before.
  [/(?:user|recipient|mailbox|account|address|alias).{0,40}unavailable/, "unknown-user"],
];
