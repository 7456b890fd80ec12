// Asks for a token for each resource on standard input by one client of Node.js.
//
// Usage: client.mjs CLIENT SELECTOR [VALUE], or client.mjs versions. Each line of input
// gets one line of JSON: a token or an error. Status 3: the client has no such selector.
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

const [name, selector, value] = process.argv.slice(2);

// options picks the client's own name for the selector.
function options(names) {
  if (selector === "system") return {};
  if (!(selector in names)) process.exit(3);
  return { [names[selector]]: value };
}

const clients = {
  "@azure/identity": async () => {
    const { ManagedIdentityCredential } = await import("@azure/identity");
    const credential = new ManagedIdentityCredential(
      options({ client_id: "clientId", object_id: "objectId", resource_id: "resourceId" }));
    return async (resource) => (await credential.getToken(resource + "/.default")).token;
  },
  "@azure/identity, DefaultAzureCredential": async () => {
    const { DefaultAzureCredential } = await import("@azure/identity");
    const credential = new DefaultAzureCredential(
      options({ client_id: "managedIdentityClientId", resource_id: "managedIdentityResourceId" }));
    return async (resource) => (await credential.getToken(resource + "/.default")).token;
  },
  "@azure/msal-node": async () => {
    const { ManagedIdentityApplication } = await import("@azure/msal-node");
    const client = new ManagedIdentityApplication({ managedIdentityIdParams: options({
      client_id: "userAssignedClientId", object_id: "userAssignedObjectId", resource_id: "userAssignedResourceId" }) });
    return async (resource) => (await client.acquireToken({ resource })).accessToken;
  },
  "@azure/ms-rest-nodeauth": async () => {
    const { MSIVmTokenCredentials, MSIAppServiceTokenCredentials } = (await import("@azure/ms-rest-nodeauth")).default;
    const appService = process.env.MSI_SECRET !== undefined;
    const chosen = options(appService ? { client_id: "clientId" } :
      { client_id: "clientId", object_id: "objectId", resource_id: "identityId" });
    const Credentials = appService ? MSIAppServiceTokenCredentials : MSIVmTokenCredentials;
    const credentials = {};
    return async (resource) => {
      credentials[resource] ??= new Credentials({ ...chosen, resource });
      return (await credentials[resource].getToken()).accessToken;
    };
  },
};

function version(client) {
  const file = new URL(`node_modules/${client.split(",")[0]}/package.json`, import.meta.url);
  return JSON.parse(readFileSync(file)).version;
}

if (name === "versions") {
  console.log(JSON.stringify(Object.fromEntries(Object.keys(clients).map((c) => [c, version(c)]))));
} else {
  // A constructor that refuses does so to each that asks.
  const ask = await clients[name]().catch((fault) => () => Promise.reject(fault));
  for await (const line of createInterface({ input: process.stdin })) {
    const reply = await ask(line).then((token) => ({ token }), (fault) => ({ error: `${fault.name}: ${fault.message}` }));
    console.log(JSON.stringify(reply));
  }
}
