// Drives the service with the unmodified @azure/arm-sql.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { setTimeout as sleep } from "node:timers/promises";

// The packages lie in the set-up's cache, not beside this file.
const require = createRequire(`${process.env.PACKAGES}/package.json`);
const { ClientSecretCredential } = require("@azure/identity");
const { SqlManagementClient } = require("@azure/arm-sql");

const { BASE, TENANT, SUBSCRIPTION, CLIENT_ID, CLIENT_SECRET } = process.env;
const [group, instance] = ["default", "one"];
const credential = new ClientSecretCredential(TENANT, CLIENT_ID, CLIENT_SECRET, {
  authorityHost: BASE,
  disableInstanceDiscovery: true,
});
const client = new SqlManagementClient(credential, SUBSCRIPTION, {
  endpoint: BASE,
  credentialScopes: [`${BASE}/.default`],
});

async function all(pages) {
  const found = [];
  for await (const one of pages) found.push(one);
  return found;
}

async function refused(code, promise) {
  await assert.rejects(promise, (error) => {
    assert.equal(error.code, code, error.message);
    return true;
  });
}

const instances = await all(client.managedInstances.list());
assert.deepEqual(instances.map((one) => one.name), [instance]);
const names = (await all(client.managedDatabases.listByInstance(group, instance))).map((one) => one.name);
assert.ok(names.includes("app"), `${names}`);
const app = await client.managedDatabases.get(group, instance, "app");
assert.equal(app.status, "Online");
await refused("ResourceNotFound", client.managedDatabases.get(group, instance, "absent"));

// Created, restored, deleted, and had back.
await client.managedDatabases.beginCreateOrUpdateAndWait(group, instance, "js_fresh", { location: app.location });
await client.managedDatabases.beginDeleteAndWait(group, instance, "js_fresh");
const point = new Date();
// Of a server that writes nothing it is noted now and then that nothing came; until then the point lies ahead.
let restored;
for (let tries = 0; restored === undefined; tries++) {
  try {
    restored = await client.managedDatabases.beginCreateOrUpdateAndWait(group, instance, "js_back", {
      location: app.location,
      createMode: "PointInTimeRestore",
      sourceDatabaseId: app.id,
      restorePointInTime: point,
    });
  } catch (error) {
    if (error.code !== "PitrPointInTimeInvalid" || tries === 60) throw error;
    await sleep(2000);
  }
}
assert.equal(restored.status, "Online");
const details = await client.managedDatabaseRestoreDetails.get(group, instance, "js_back", "Default");
assert.equal(details.percentCompleted, 100);
await client.managedDatabases.beginDeleteAndWait(group, instance, "js_back");
let gone = [];
for (let tries = 0; gone.length === 0 && tries < 60; tries++) {
  const deleted = await all(client.restorableDroppedManagedDatabases.listByInstance(group, instance));
  gone = deleted.filter((one) => one.databaseName === "js_back");
  await sleep(500);
}
assert.equal(gone.length, 1);
await client.managedDatabases.beginCreateOrUpdateAndWait(group, instance, "js_again", {
  location: app.location,
  createMode: "PointInTimeRestore",
  restorableDroppedDatabaseId: gone[0].id,
  restorePointInTime: gone[0].deletionDate,
});
await refused(
  "PitrPointInTimeInvalid",
  client.managedDatabases.beginCreateOrUpdateAndWait(group, instance, "js_never", {
    location: app.location,
    createMode: "PointInTimeRestore",
    sourceDatabaseId: app.id,
    restorePointInTime: new Date("2001-01-01T00:00:00Z"),
  }),
);

const policies = client.managedBackupShortTermRetentionPolicies;
const policy = await policies.beginCreateOrUpdateAndWait(group, instance, "app", "default", { retentionDays: 9 });
assert.equal(policy.retentionDays, 9);
await refused(
  "InvalidBackupRetentionPeriod",
  policies.beginCreateOrUpdateAndWait(group, instance, "app", "default", { retentionDays: 36 }),
);
const operations = await all(client.managedInstanceOperations.listByManagedInstance(group, instance));
assert.ok(operations.some((one) => one.operation === "FullBackup"));
console.log("  @azure/arm-sql is served");
