// Verifies each case on standard input with jose, and prints what it found.
import { readFileSync } from "node:fs";
import { createLocalJWKSet, jwtVerify } from "jose";

async function attempt({ token, keys, issuer, audience, subject }) {
  try {
    const { payload } = await jwtVerify(token, createLocalJWKSet(keys), {
      algorithms: ["RS256"],
      typ: "JWT",
      issuer,
      audience,
      subject,
      requiredClaims: ["iss", "sub", "aud", "iat", "nbf", "exp", "jti"],
    });
    return { claims: payload };
  } catch (refusal) {
    return { refusal: String(refusal) };
  }
}

const cases = JSON.parse(readFileSync(0, "utf8"));
process.stdout.write(JSON.stringify(await Promise.all(cases.map(attempt))));
