//! Instances in several subscriptions and resource groups of one service.

use anyhow::{Context, Result};
use everpoint_server::{
    access::Scope,
    http::{Answer, Method},
};
use everpoint_testkit::{
    Cluster, Scratch, Server,
    compare::{assert_same_database, fingerprint_database},
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    databases::{end_of, moment, operation, put, quick, state},
    live::{add, eventually, instance_path, time},
    support::{Place, Somebody, VERSION, code, json as body_of},
};

fn refusal(answer: &Answer) -> (u16, String) {
    let body = body_of(answer);
    (
        answer.status,
        format!("{} {}", code(&body), body["error"]["message"]),
    )
}

fn names(answer: &Value) -> Vec<&str> {
    let all = answer["value"].as_array();
    let names = all.into_iter().flatten();
    names
        .filter_map(|one| one["name"].as_str().or(one["subscriptionId"].as_str()))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_into_another_subscription_needs_the_right_on_both_sides() -> Result<()> {
    let server = Server::find(18)?;
    let (one, two) = tokio::try_join!(
        Cluster::builder(server.major()).start(),
        Cluster::builder(server.major()).start(),
    )?;
    one.sql("postgres", "CREATE DATABASE app").await?;
    one.sql(
        "app",
        "CREATE TABLE t AS SELECT generate_series(1, 100) AS a",
    )
    .await?;
    let (place, scratch) = (Place::new().await?, Scratch::new()?);
    add(&place, &one, "one").await?;
    add(&place, &two, "two").await?;
    let other = Uuid::new_v4();
    let here =
        format!("[instances.two]\nsubscription = \"{other}\"\nresource_group = \"Elsewhere\"\n");
    let config = quick(&scratch, &server, "").replace("[instances.two]\n", &here);
    let running = place.start(&config).await?;
    let service = running.service();
    let owner = Somebody::new(service).await?;
    owner.with("Owner", &service.group_scope()).await?;
    let source = instance_path(service);
    let app = format!("{source}/databases/app");
    eventually(&owner, &app, "a window", |answer| {
        time(&answer["properties"]["earliestRestorePoint"])
    })
    .await?;
    let expected = fingerprint_database(&one.connect("app").await?).await?;
    let point = moment(&owner, &one, &app).await?;

    // Each sees the subscriptions, groups and instances in which it has rights.
    let target = service.instance_scope(&"two".parse()?).to_string();
    assert!(target.starts_with(&format!("/subscriptions/{other}/resourceGroups/Elsewhere/")));
    assert_eq!(
        names(&owner.get("/subscriptions").await.1),
        [service.subscription().to_string()]
    );
    assert_eq!(owner.get(&target).await.0, 403);
    let misplaced = source.replace("/one", "/two");
    assert_eq!(owner.get(&misplaced).await.0, 404);
    let guest = Somebody::new(service).await?;
    guest
        .with("Contributor", &Scope::subscription(other))
        .await?;
    assert_eq!(
        names(&guest.get("/subscriptions").await.1),
        [other.to_string()]
    );
    let all = format!("/subscriptions/{other}/providers/Microsoft.Sql/managedInstances");
    assert_eq!(names(&guest.get(&all).await.1), ["two"]);
    let groups = format!("/subscriptions/{other}/resourceGroups");
    assert_eq!(names(&guest.get(&groups).await.1), ["Elsewhere"]);
    assert_eq!(guest.get(&format!("{groups}/default")).await.0, 404);
    // Nor is it told which others there are.
    let stranger = Somebody::new(service).await?;
    stranger
        .with(
            "Contributor",
            &service.instance_scope(&"one".parse()?).below("mine"),
        )
        .await?;
    for id in [
        target.clone(),
        target.replace("Elsewhere", "none"),
        target.replace(&other.to_string(), &Uuid::new_v4().to_string()),
    ] {
        let wish = json!({"properties": {"createMode": "PointInTimeRestore", "sourceDatabaseId": format!("{id}/databases/app"), "restorePointInTime": point}});
        let (status, text) = refusal(
            &put(
                &stranger,
                &format!("{source}/databases/mine"),
                &wish.to_string(),
            )
            .await,
        );
        assert!(
            status == 403 && text.contains("AuthorizationFailed"),
            "{id}: {status} {text}"
        );
    }

    let wish = |instance: &str| {
        json!({"properties": {
            "createMode": "PointInTimeRestore",
            "crossSubscriptionSourceDatabaseId": app,
            "crossSubscriptionTargetManagedInstanceId": instance,
            "restorePointInTime": point,
        }})
        .to_string()
    };
    let copy = format!("{target}/databases/copy");
    // Who may write the target alone, and who may read the source alone.
    let (status, text) = refusal(&put(&guest, &copy, &wish(&target)).await);
    assert!(
        status == 403 && text.contains("readBackups/action") && text.contains("/databases/app"),
        "{text}"
    );
    let (status, text) = refusal(&put(&owner, &copy, &wish(&target)).await);
    assert!(
        status == 403
            && text.contains("managedInstances/databases/write")
            && text.contains("/databases/copy"),
        "{text}"
    );
    guest
        .with(
            "Contributor",
            &service.instance_scope(&"one".parse()?).below("app"),
        )
        .await?;
    assert_eq!(refusal(&put(&guest, &copy, &wish(&misplaced)).await).0, 400);
    let answer = put(&guest, &copy, &wish(&target)).await;
    assert_eq!(answer.status, 202, "{}", body_of(&answer));
    let (_, follow) = answer
        .headers
        .iter()
        .find(|(name, _)| *name == "azure-asyncoperation")
        .context("where it is followed")?;
    assert!(follow.contains(&other.to_string()), "{follow}");
    let ended = end_of(&guest, &operation(&answer, &target)?).await?;
    assert_eq!(state(&ended), "Succeeded", "{ended}");
    let id = follow
        .rsplit('/')
        .next()
        .and_then(|id| id.split('?').next())
        .context("an id")?;
    let status_in = |subscription: Uuid| {
        format!(
            "/subscriptions/{subscription}/providers/Microsoft.Sql/locations/local/managedDatabaseAzureAsyncOperation/{id}"
        )
    };
    assert_eq!(guest.get(&status_in(other)).await.0, 200);
    assert_eq!(guest.get(&status_in(service.subscription())).await.0, 404);
    let found = fingerprint_database(&two.connect("copy").await?).await?;
    assert_same_database(&expected, &found);

    // Roles are given there, too, by whoever may.
    let assignment = format!(
        "/subscriptions/{other}/providers/Microsoft.Authorization/roleAssignments/{}",
        Uuid::new_v4()
    );
    let reader = everpoint_server::access::Role::by_name("Reader")
        .context("a role")?
        .id;
    let body =
        json!({"properties": {"principalId": owner.id, "roleDefinitionId": reader}}).to_string();
    let refused = guest.ask(Method::Put, &assignment, VERSION, &body).await;
    assert_eq!(refused.status, 403);
    guest.with("Owner", &Scope::subscription(other)).await?;
    let given = guest.ask(Method::Put, &assignment, VERSION, &body).await;
    assert_eq!(given.status, 201, "{}", body_of(&given));
    assert_eq!(owner.get(&target).await.0, 200);
    running.stop().await;
    Ok(())
}
