// Gets the secret of each URL on standard input by the Key Vault client of Node.js.
//
// Usage: consume.mjs CONSUMER, or consume.mjs versions. Each line of input gets one
// line of JSON: a value or an error.
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { ManagedIdentityCredential } from "@azure/identity";
import { SecretClient } from "@azure/keyvault-secrets";

async function secret(line) {
  const url = new URL(line);
  const client = new SecretClient(url.origin, new ManagedIdentityCredential());
  return (await client.getSecret(url.pathname.split("/")[2])).value;
}

if (process.argv[2] === "versions") {
  const file = new URL("node_modules/@azure/keyvault-secrets/package.json", import.meta.url);
  console.log(JSON.stringify({ "@azure/keyvault-secrets": JSON.parse(readFileSync(file)).version }));
} else {
  for await (const line of createInterface({ input: process.stdin })) {
    const reply = await secret(line).then((value) => ({ value }), (fault) => ({ error: `${fault.name}: ${fault.message}` }));
    console.log(JSON.stringify(reply));
  }
}
