//! Every route × every role × every scope, against a table made by hand.

use anyhow::Result;
use everpoint_server::{
    access::Scope,
    http::{Endpoint, Need, ROUTES, Route},
    service::Wanted,
};

use super::support::{Place, Somebody, VERSION, code, json};

const ROLES: [&str; 4] = [
    "Owner",
    "Contributor",
    "Reader",
    "SQL Managed Instance Contributor",
];

/// Which roles may, by their initials, as the roles are published. A new endpoint does not compile without
/// its line.
fn by_hand(endpoint: Endpoint) -> &'static str {
    use Endpoint as E;
    match endpoint {
        E::Health | E::Ready | E::AuthorityCertificate => "anybody",
        E::ApiDescription | E::CloudMetadata => "anybody",
        E::Token | E::OpenIdConfiguration | E::KeySet | E::AdfsConfiguration => "anybody",
        // Who asks says who they are in the request itself.
        E::ManagedIdentityToken => "anybody",
        E::Tenants | E::Subscriptions | E::DirectoryObjects | E::ServicePrincipals => "token",
        // The instance contributor's actions name the groups, not the subscription.
        E::Subscription => "OCR",
        E::ResourceGroups | E::ResourceGroup => "OCRS",
        E::Instances | E::Instance | E::Databases | E::Database => "OCRS",
        E::DatabasePut | E::DatabasePatch | E::DatabaseDelete => "OCS",
        E::DatabaseStatus | E::DatabaseResult | E::RestoreDetails => "OCRS",
        E::RecoverableDatabases | E::RecoverableDatabase => "OCRS",
        E::DroppedDatabases | E::DroppedDatabase => "OCRS",
        E::ShortTermPolicies | E::ShortTermPolicy => "OCRS",
        E::ShortTermPolicyPut | E::DroppedShortTermPolicyPut => "OCS",
        E::DroppedShortTermPolicies | E::DroppedShortTermPolicy => "OCRS",
        E::LongTermPolicies | E::LongTermPolicy => "OCRS",
        E::LongTermPolicyPut | E::LongTermPolicyDelete => "OCS",
        E::LongTermBackups | E::LongTermBackup => "OCRS",
        E::LongTermBackupDelete => "OC",
        E::LongTermBackupHold | E::LongTermBackupRelease => "OC",
        E::Operations | E::Operation | E::AsyncStatus => "OCRS",
        E::OperationCancel => "OCS",
        E::RoleDefinitions | E::RoleDefinition => "OCRS",
        E::RoleAssignments | E::RoleAssignment => "OCRS",
        E::RoleAssignmentPut | E::RoleAssignmentDelete => "O",
    }
}

/// How deep the scope of a route lies: 0 the subscription, 3 a database.
fn depth(route: &Route) -> usize {
    let names = ["{group}", "{instance}", "{database}"];
    names
        .iter()
        .filter(|name| route.pattern.contains(*name))
        .count()
}

fn path(route: &Route, subscription: &str, tenant: &str) -> String {
    let id = "7d9a7c1e-0000-4000-8000-00000000000a";
    [
        ("{subscription}", subscription),
        ("{tenant}", tenant),
        ("{group}", "default"),
        ("{instance}", "one"),
        ("{database}", "app"),
        ("{dropped}", "app,132024306561630000"),
        ("{policy}", "default"),
        ("{location}", "local"),
        ("{details}", "Default"),
        ("{operation}", id),
        ("{location}", "local"),
        ("{source}", "one"),
        ("{sourceDatabase}", "app"),
        (
            "{backup}",
            "7d9a7c1e-0000-4000-8000-00000000000a;132024306561630000",
        ),
        ("{role}", id),
        ("{assignment}", id),
    ]
    .iter()
    .fold(route.pattern.to_owned(), |path, (name, value)| {
        path.replace(name, value)
    })
}

#[tokio::test]
async fn every_route_is_open_to_exactly_the_roles_that_are_published_for_it() -> Result<()> {
    let place = Place::new().await?;
    let running = place.start("").await?;
    let service = running.service();
    let (subscription, tenant) = (
        service.subscription().to_string(),
        service.tenant().to_string(),
    );
    let whole = Scope::subscription(service.subscription());
    let group = whole.below("Default");
    let instance = group.below("ONE");
    // Places on the way to the database, by depth, and others beside it.
    let chain = [
        whole.clone(),
        group.clone(),
        instance.clone(),
        instance.below("app"),
    ];
    let beside = [
        Scope::subscription(uuid::Uuid::nil()),
        whole.below("other"),
        group.below("other"),
        instance.below("other"),
    ];
    let somebody = Somebody::new(service).await?;
    let mut decisions = 0;
    for route in ROUTES {
        let path = path(route, &subscription, &tenant);
        let hand = by_hand(route.endpoint);
        let without_token = Wanted {
            method: Some(route.method),
            path: &path,
            query: VERSION,
            token: None,
            identity_header: None,
            body: b"",
        };
        let signs_in = matches!(
            route.endpoint,
            Endpoint::Token | Endpoint::ManagedIdentityToken
        );
        let refused = service.answer(&without_token).await.status == 401 && !signs_in;
        assert_eq!(refused, hand != "anybody", "{path} without a token");
        if matches!(hand, "anybody" | "token") {
            assert!(matches!(route.need, Need::Nothing | Need::Token), "{path}");
            continue;
        }
        let nothing = somebody.ask(route.method, &path, VERSION, "").await;
        assert_eq!(nothing.status, 403, "{path} without any role");
        assert_eq!(code(&json(&nothing)), "AuthorizationFailed");
        for role in ROLES {
            let places = chain
                .iter()
                .enumerate()
                .map(|(depth, scope)| (Some(depth), scope));
            let places = places.chain(beside.iter().map(|scope| (None, scope)));
            for (at, scope) in places {
                let given = somebody.with(role, scope).await?;
                let answer = somebody.ask(route.method, &path, VERSION, "{}").await;
                somebody.without(given).await?;
                let reaches = match (at, route.need) {
                    (Some(_), Need::RightBelow(_)) => true,
                    (Some(at), _) => at <= depth(route),
                    // What lies beside the database still lies below the subscription, the group …
                    (None, Need::RightBelow(_)) => chain
                        .get(depth(route))
                        .is_some_and(|asked| asked.contains(scope)),
                    (None, _) => false,
                };
                let allowed = reaches && hand.contains(&role[..1]);
                let context = format!("{:?} {path} as {role} at {scope}", route.method);
                assert_eq!(
                    answer.status != 403,
                    allowed,
                    "{context}: {}",
                    answer.status
                );
                assert_ne!(answer.status, 401, "{context}");
                if !allowed {
                    let text = json(&answer)["error"]["message"].to_string();
                    assert!(text.contains(&somebody.id.to_string()), "{text}");
                    assert!(text.contains("Microsoft."), "{text}");
                    assert!(text.contains(&subscription), "{text}");
                }
                decisions += 1;
            }
        }
    }
    assert!(decisions > 1000, "{decisions}");
    let log = place.path().join("state/audit.jsonl");
    running.stop().await;
    let head = everpoint_server::audit::AuditFile::check(&log, None)?;
    assert!(
        head.lines() > decisions,
        "every decision is in the audit log"
    );
    Ok(())
}
