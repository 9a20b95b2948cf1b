//! Requests that are meant to break something.

use std::sync::Arc;

use anyhow::{Context, Result};
use everpoint_server::{
    access::Scope,
    audit::AuditFile,
    catalog::PrincipalKind,
    http::Method,
    service::{Directory, SignIn, Wanted},
};
use uuid::Uuid;

use super::support::{Place, Somebody, VERSION, code, json};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_and_odd_paths_do_no_harm_to_the_audit_log() -> Result<()> {
    let place = Place::new().await?;
    let running = place.start("").await?;
    let service = running.service();
    let nobody = Somebody::new(service).await?;
    let subscription = Scope::subscription(service.subscription());
    for name in ["%01".repeat(11_500), "%01".repeat(300), "x".repeat(4000)] {
        let (status, answer) = nobody
            .get(&format!("{subscription}/resourceGroups/{name}"))
            .await;
        assert_eq!(
            (status, code(&answer)),
            (400, "InvalidParameterValue"),
            "{answer}"
        );
    }
    let quoted = format!("{subscription}/resourceGroups/{}", "%22".repeat(300));
    assert_eq!(nobody.get(&quoted).await.0, 403);
    running.stop().await;
    let head = AuditFile::check(&place.path().join("state/audit.jsonl"), None)?;
    assert!(head.lines() > 0);
    place.start("").await?.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_assignment_at_an_odd_name_is_like_others_and_written_down() -> Result<()> {
    let place = Place::new().await?;
    let running = place.start("").await?;
    let service = running.service();
    let owner = Somebody::new(service).await?;
    let group = service.group_scope();
    owner.with("Owner", &group).await?;
    let one = service.instance_scope(&"one".parse()?);
    let other = Somebody::new(service).await?;
    let reader = format!(
        "{group}/providers/Microsoft.Authorization/roleDefinitions/acdd72a7-3385-48ef-bd42-f606fba81ae7"
    );
    let body =
        serde_json::json!({"properties": {"roleDefinitionId": reader, "principalId": other.id}});
    for name in ["a%2Fb", "x%252F", "100%25", "Gr%C3%B6%C3%9Fe"] {
        let id = Uuid::new_v4();
        let path = format!(
            "{one}/databases/{name}/providers/Microsoft.Authorization/roleAssignments/{id}"
        );
        let (status, answer) = owner.put(&path, &body.to_string()).await;
        assert_eq!(status, 201, "{answer}");
        let printed = answer["id"].as_str().context("an id")?;
        assert_eq!(owner.get(printed).await.0, 200, "{printed}");
        service.reload_access().await?;
        let deleted = owner.ask(Method::Delete, printed, VERSION, "").await;
        assert_eq!(deleted.status, 200, "{printed}");
        assert_eq!(owner.get(&path).await.0, 404);
        let log = std::fs::read_to_string(place.path().join("state/audit.jsonl"))?;
        for what in ["assigned", "taken away"] {
            let told = format!("Reader {what}: principal {}, assignment {id}", other.id);
            assert!(log.contains(&told), "{told}");
        }
    }
    let all = format!("{group}/providers/Microsoft.Authorization/roleAssignments");
    let wrong = owner.ask(Method::Patch, &all, VERSION, "").await;
    assert_eq!(wrong.status, 405);
    assert!(
        wrong.headers.contains(&("allow", "GET".to_owned())),
        "{:?}",
        wrong.headers
    );
    let filter = format!("{VERSION}&$filter=principalId%20eq%20{}", other.id);
    let unquoted = owner.ask(Method::Get, &all, &filter, "").await;
    assert_eq!(code(&json(&unquoted)), "InvalidParameterValue");
    running.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_who_cannot_sign_in_is_none() -> Result<()> {
    let place = Place::new().await?;
    let running = place.start("").await?;
    let service = running.service();
    let whole = Scope::subscription(service.subscription());
    // The first start's owner goes first, so that there are none but those of this test.
    let first = service.assignments();
    let (one, two) = (Somebody::new(service).await?, Somebody::new(service).await?);
    let (ones, twos) = (
        one.with("Owner", &whole).await?,
        two.with("Owner", &whole).await?,
    );
    let place_of =
        |id: Uuid| format!("{whole}/providers/Microsoft.Authorization/roleAssignments/{id}");
    for (assignment, _) in first.iter() {
        let answer = one
            .ask(Method::Delete, &place_of(assignment.id), VERSION, "")
            .await;
        assert_eq!(answer.status, 200);
    }
    let directory = Directory::open(&place.config("state", "", "")?).await?;
    directory
        .disable(PrincipalKind::ServicePrincipal, &two.id.to_string())
        .await?;
    service.reload_access().await?;
    let refused = one.ask(Method::Delete, &place_of(ones), VERSION, "").await;
    assert_eq!(code(&json(&refused)), "LastOwnerAssignment");
    assert_eq!(one.get(&place_of(ones)).await.0, 200, "it is still there");
    let done = one.ask(Method::Delete, &place_of(twos), VERSION, "").await;
    assert_eq!(done.status, 200);
    running.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_guesses_at_once_are_no_more_than_one_after_the_other() -> Result<()> {
    let place = Place::new().await?;
    let running = place.start("").await?;
    let directory = Directory::open(&place.config("state", "", "")?).await?;
    directory
        .add_user("ann", SignIn::Password("twelve and more"), None)
        .await?;
    running.service().reload_access().await?;
    let service = Arc::clone(running.service());
    let path: Arc<str> = format!("/{}/oauth2/v2.0/token", service.tenant()).into();
    let mut guesses = tokio::task::JoinSet::new();
    for guess in 0..60 {
        let (service, path) = (Arc::clone(&service), Arc::clone(&path));
        guesses.spawn(async move {
            let base = service.config().base_url();
            let body = format!(
                "grant_type=password&username=ann&password=guess-{guess}&scope=openid%20{base}/.default"
            );
            let wanted = Wanted {
                method: Some(Method::Post),
                path: &path,
                query: "",
                token: None,
                identity_header: None,
                body: body.as_bytes(),
            };
            service.answer(&wanted).await.status
        });
    }
    let statuses = guesses.join_all().await;
    let tried = statuses.iter().filter(|status| **status != 429).count();
    assert!((10..20).contains(&tried), "{statuses:?}");
    running.stop().await;
    Ok(())
}
