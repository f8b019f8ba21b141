/** Who calls: the login name and full name of the user, by /etc/passwd or the environment. */

export interface Person {
  readonly login: string;
  readonly fullName: string | undefined;
}

/** @param passwd text of /etc/passwd; "" where it cannot be read */
export function personOf(
  uid: number | null,
  passwd: string,
  env: { get(name: string): string | undefined },
): Person {
  for (const entry of passwd.split("\n")) {
    const [login, , id, , gecos = ""] = entry.split(":");
    if (!login || uid === null || id !== String(uid)) continue;
    const name = gecos.split(",", 1)[0]!
      .replaceAll("&", login.slice(0, 1).toUpperCase() + login.slice(1)).trim();
    return { login, fullName: env.get("NAME") ?? (name || undefined) };
  }
  const login = env.get("LOGNAME") || env.get("USER") || `uid${uid ?? ""}`;
  return { login, fullName: env.get("NAME") };
}
