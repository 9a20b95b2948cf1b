"""Makes, restores and deletes databases with Azure's own SDK, unmodified."""

import os
import uuid
from datetime import datetime, timedelta

from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.identity import ClientSecretCredential
from azure.mgmt.sql import SqlManagementClient

base = os.environ["BASE"]
subscription = os.environ["SUBSCRIPTION"]
point = datetime.fromisoformat(os.environ["POINT"].replace("Z", "+00:00"))
group, one, two = "default", "one", "two"

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
databases = client.managed_databases


def refused(code, call):
    try:
        call()
    except HttpResponseError as error:
        assert error.error is not None and error.error.code == code, error
        return error.message
    raise AssertionError(f"{code} was expected")


def make(instance, name, tags=None, **properties):
    body = {"location": "local", "properties": properties}
    if tags is not None:
        body["tags"] = tags
    return databases.begin_create_or_update(group, instance, name, body).result()


def restore(instance, name, tags=None, **properties):
    return make(instance, name, tags, createMode="PointInTimeRestore", **properties)


def names(instance):
    return [found.name for found in databases.list_by_instance(group, instance)]


# An empty one.
made = make(one, "fresh", {"env": "test", "team": "sales"})
assert (made.name, made.status) == ("fresh", "Online"), made
assert made.tags == {"env": "test", "team": "sales"}, made
assert "fresh" in names(one), names(one)
assert make(one, "fresh").tags == made.tags, "what is there is left as it is"
assert make(one, "fresh", {"env": "x"}).tags == {"env": "x"}
refused("CannotUseReservedDatabaseName", lambda: make(one, "template1"))
refused("CannotUseTrailingWhitespacesInDatabaseName", lambda: make(one, "x "))
refused("InvalidParameterValue", lambda: make(one, "french", collation="nowhere_NO"))
refused("InvalidParameterValue", lambda: make(one, "x", createMode="Sideways"))
refused("InvalidParameterValue", lambda: make(one, "fresh", {"a/b": "x"}))
assert databases.begin_update(group, one, "fresh", {"tags": {"a": "b"}}).result().tags == {"a": "b"}
assert databases.begin_update(group, one, "fresh", {}).result().tags == {"a": "b"}
assert databases.get(group, one, "fresh").tags == {"a": "b"}
assert databases.begin_update(group, one, "fresh", {"tags": {}}).result().tags == {}

# As it was at a moment, in the same instance and in another one.
source = databases.get(group, one, "app").id
back = restore(one, "app_back", {"for": "a look"}, sourceDatabaseId=source, restorePointInTime=point)
assert (back.name, back.status) == ("app_back", "Online"), back
assert back.tags == {"for": "a look"}, back
other = restore(two, "app_elsewhere", sourceDatabaseId=source, restorePointInTime=point)
assert (other.name, other.status) == ("app_elsewhere", "Online"), other
assert "/managedInstances/two/" in other.id, other.id

details = client.managed_database_restore_details.get(group, one, "app_back", "Default")
assert (details.status, details.percent_completed) == ("Completed", 100), details
assert details.number_of_files_restored == details.number_of_files_detected >= 1, details
assert [found.status for found in details.full_backup_sets] == ["Restored"], details
assert details.full_backup_sets[0].restore_finished_timestamp_utc is not None
assert details.current_restored_size_mb == details.current_restore_plan_size_mb > 0, details
try:
    client.managed_database_restore_details.get(group, one, "fresh", "Default")
    raise AssertionError("a database that no restore made has the details of one")
except ResourceNotFoundError:
    pass
operations = [
    found
    for found in client.managed_instance_operations.list_by_managed_instance(group, one)
    if found.operation == "RestoreManagedDatabase"
]
assert [found.state for found in operations] == ["Succeeded"], operations
whole = client.managed_instance_operations.get(group, one, uuid.UUID(operations[0].name))
steps = whole.operation_steps
assert steps.total_steps == "8", steps
assert all(found.status == "Completed" for found in steps.steps_list), steps

# Where the instance is lost.
recoverable = client.recoverable_managed_databases.get(group, one, "app")
assert recoverable.last_available_backup_date is not None
found = make(two, "app_recovered", createMode="Recovery", recoverableDatabaseId=recoverable.id)
assert found.status == "Online", found

# What is refused.
refused(
    "ManagedDatabaseNameInUse",
    lambda: restore(one, "app_back", sourceDatabaseId=source, restorePointInTime=point),
)
text = refused(
    "PitrPointInTimeInvalid",
    lambda: restore(
        one, "x", sourceDatabaseId=source, restorePointInTime=point - timedelta(days=1)
    ),
)
assert "can be restored from" in text, text
refused("MissingRestorePointInTime", lambda: restore(one, "x", sourceDatabaseId=source))
refused("MissingSourceDatabaseId", lambda: restore(one, "x", restorePointInTime=point))
refused(
    "InvalidSourceDatabaseId",
    lambda: restore(one, "x", sourceDatabaseId="/app", restorePointInTime=point),
)
refused(
    "RestoreSourceDatabaseNotFound",
    lambda: restore(
        one, "x", sourceDatabaseId=source.replace("/app", "/nothing"), restorePointInTime=point
    ),
)
# Nobody has a right in a subscription that is none, and is not told that it is none.
refused(
    "AuthorizationFailed",
    lambda: restore(
        one,
        "x",
        crossSubscriptionSourceDatabaseId=source.replace(subscription, str(uuid.uuid4())),
        restorePointInTime=point,
    ),
)
refused(
    "InvalidRestorableDroppedDatabaseId",
    lambda: restore(one, "x", restorableDroppedDatabaseId=source),
)
refused(
    "RestorableDroppedDatabaseIdGivenForRestoreWithSourceDatabaseId",
    lambda: restore(
        one,
        "x",
        sourceDatabaseId=source,
        restorableDroppedDatabaseId=source,
        restorePointInTime=point,
    ),
)
refused("ManagementServiceFeatureDisabled", lambda: make(one, "x", createMode="RestoreExternalBackup"))
refused("CannotUseReservedDatabaseName", lambda: databases.begin_delete(group, one, "postgres").result())

# Deleted, and had back to the last transaction, and to a moment before.
databases.begin_delete(group, one, "app").result()
assert "app" not in names(one), names(one)
databases.begin_delete(group, one, "app").result()
dropped = list(client.restorable_dropped_managed_databases.list_by_instance(group, one))
assert [found.database_name for found in dropped] == ["app"], dropped
found = restore(one, "app_undeleted", restorableDroppedDatabaseId=dropped[0].id)
assert found.status == "Online", found
found = restore(
    one, "app_before", restorableDroppedDatabaseId=dropped[0].id, restorePointInTime=point
)
assert found.status == "Online", found
print("databases are made, restored and deleted")
