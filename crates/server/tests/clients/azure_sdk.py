"""Drives the service with Azure's own SDK, unmodified, and fails where it answers otherwise than expected."""

import os
import uuid

from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.identity import ClientSecretCredential
from azure.mgmt.sql import SqlManagementClient

base = os.environ["BASE"]
subscription = os.environ["SUBSCRIPTION"]
group, instance, database = "Default", "One", "app"

credential = ClientSecretCredential(
    os.environ["TENANT"],
    os.environ["CLIENT_ID"],
    os.environ["CLIENT_SECRET"],
    authority=base,
    disable_instance_discovery=True,
)
client = SqlManagementClient(
    credential, subscription, base_url=base, credential_scopes=[base + "/.default"]
)


def refused(code, call):
    try:
        call()
    except HttpResponseError as error:
        assert error.error is not None and error.error.code == code, error
        return error
    raise AssertionError(f"{code} was expected")


# Instances.
names = [found.name for found in client.managed_instances.list()]
assert names == ["one"], names
names = [found.name for found in client.managed_instances.list_by_resource_group(group)]
assert names == ["one"], names
found = client.managed_instances.get(group, instance)
assert found.type == "Microsoft.Sql/managedInstances", found
assert found.state == "Ready", found.state

# Databases.
names = [found.name for found in client.managed_databases.list_by_instance(group, instance)]
assert names == ["app", "postgres"], names
found = client.managed_databases.get(group, instance, database)
assert found.status == "Online", found.status
assert found.earliest_restore_point is not None
assert found.creation_date <= found.earliest_restore_point
try:
    client.managed_databases.get(group, instance, "absent")
    raise AssertionError("a database that is not there was found")
except ResourceNotFoundError as error:
    assert error.error.code == "ResourceNotFound", error

# Short-term retention.
policies = client.managed_backup_short_term_retention_policies
assert policies.get(group, instance, database, "default").retention_days == 7
changed = policies.begin_create_or_update(
    group, instance, database, "default", {"properties": {"retentionDays": 14}}
).result()
assert changed.retention_days == 14, changed
changed = policies.begin_update(
    group, instance, database, "default", {"properties": {"retentionDays": 21}}
).result()
assert changed.retention_days == 21, changed
listed = list(policies.list_by_database(group, instance, database))
assert [found.retention_days for found in listed] == [21], listed
refused(
    "InvalidBackupRetentionPeriod",
    lambda: policies.begin_create_or_update(
        group, instance, database, "default", {"properties": {"retentionDays": 36}}
    ).result(),
)

# Long-term retention: nothing is kept.
policy = client.managed_instance_long_term_retention_policies.get(
    group, instance, database, "default"
)
assert policy.weekly_retention == "PT0S", policy

# Operations.
operations = list(client.managed_instance_operations.list_by_managed_instance(group, instance))
full = [found for found in operations if found.operation == "FullBackup"]
assert len(full) == 1 and full[0].state == "Succeeded", operations
assert full[0].percent_complete == 100
one = client.managed_instance_operations.get(group, instance, uuid.UUID(full[0].name))
assert one.start_time is not None
refused(
    "CannotCancelOperation",
    lambda: client.managed_instance_operations.cancel(group, instance, uuid.UUID(full[0].name)),
)

# Deleted databases: none yet.
assert list(client.restorable_dropped_managed_databases.list_by_instance(group, instance)) == []
print("the SDK is served")
