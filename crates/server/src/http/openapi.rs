//! The API's description in OpenAPI's form, made from the table of routes: a route cannot be left out of it.
//!
//! `openapi/everpoint.json` is what this makes; a test compares them. `EVERPOINT_WRITE_OPENAPI=1` has the test
//! write the file.

use std::collections::BTreeMap;

use everpoint_api::{
    List, Resource, database, directory, discovery, error::ErrorBody, instance, operation, restore,
    retention, role,
};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ComponentsBuilder, ContentBuilder, HttpMethod, InfoBuilder, ObjectBuilder, OpenApi,
        OpenApiBuilder, PathsBuilder, Ref, RefOr, Required, ResponseBuilder, Schema, Type,
        extensions::ExtensionsBuilder,
        path::{Operation, OperationBuilder, Parameter, ParameterBuilder, ParameterIn},
        request_body::{RequestBody, RequestBodyBuilder},
        security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
    },
};

use super::routes::{Endpoint, Method, Need, ROUTES, Route};

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";
const BEARER: &str = "bearer";

/// The description of all routes.
pub fn document() -> OpenApi {
    let mut schemas = Schemas::default();
    let mut paths = PathsBuilder::new().build();
    for route in ROUTES {
        let operation = operation_of(route, &mut schemas);
        paths.add_path_operation(route.pattern, vec![method(route.method)], operation);
    }
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("JWT")
        .description(Some("from POST /{tenant}/oauth2/v2.0/token"));
    let components = ComponentsBuilder::new()
        .schemas_from_iter(schemas.0)
        .security_scheme(BEARER, SecurityScheme::Http(bearer.build()));
    let about = "Automatic backups and restores of PostgreSQL servers, in the shape of Azure Resource Manager's \
                 Microsoft.Sql/managedInstances. Paths match in any case. Errors carry one of the published codes.";
    let info = InfoBuilder::new()
        .title("Everpoint")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(about));
    OpenApiBuilder::new()
        .info(info.build())
        .paths(paths)
        .components(Some(components.build()))
        .build()
}

/// Schemas by name.
#[derive(Default)]
struct Schemas(BTreeMap<String, RefOr<Schema>>);

impl Schemas {
    /// A reference to a type's schema, under a name of ours: generic types share theirs.
    fn add<T: ToSchema>(&mut self, name: &str) -> Ref {
        let mut inner = Vec::new();
        T::schemas(&mut inner);
        self.0.extend(inner);
        self.0
            .insert(name.to_owned(), <T as PartialSchema>::schema());
        Ref::from_schema_name(name)
    }

    fn resource<P: ToSchema>(&mut self, name: &str) -> Ref {
        self.add::<P>(&P::name());
        self.add::<Resource<P>>(name)
    }

    fn list<P: ToSchema>(&mut self, name: &str) -> Ref {
        self.resource::<P>(name);
        let list = format!("{name}List");
        self.add::<List<Resource<P>>>(&list);
        // The items are the resource above, whatever the derived schema calls them.
        let items = utoipa::openapi::schema::ArrayBuilder::new().items(Ref::from_schema_name(name));
        let schema = ObjectBuilder::new()
            .property("value", items)
            .required("value")
            .property("nextLink", ObjectBuilder::new().schema_type(Type::String));
        self.0.insert(list.clone(), RefOr::T(schema.into()));
        Ref::from_schema_name(list)
    }

    fn plain_list<T: ToSchema>(&mut self, name: &str) -> Ref {
        self.add::<T>(name);
        let list = format!("{name}List");
        let items = utoipa::openapi::schema::ArrayBuilder::new().items(Ref::from_schema_name(name));
        let schema = ObjectBuilder::new()
            .property("value", items)
            .required("value");
        self.0.insert(list.clone(), RefOr::T(schema.into()));
        Ref::from_schema_name(list)
    }
}

/// What is told of an endpoint besides what its route says.
struct Told {
    summary: &'static str,
    body: Option<(&'static str, Ref)>,
    answers: Vec<(u16, Option<Ref>)>,
}

fn told(summary: &'static str, answers: impl IntoIterator<Item = (u16, Option<Ref>)>) -> Told {
    Told {
        summary,
        body: None,
        answers: answers.into_iter().collect(),
    }
}

impl Told {
    fn takes(mut self, body: Ref) -> Self {
        self.body = Some((JSON, body));
        self
    }
}

/// A new endpoint does not compile without its line.
fn tell(endpoint: Endpoint, schemas: &mut Schemas) -> Told {
    use Endpoint as E;
    let one = |answer| [(200, Some(answer))];
    match endpoint {
        E::Health => told("Whether the service runs", [(200, None)]),
        E::Ready => told("Whether catalog and repository can be read", [(200, None)]),
        E::AuthorityCertificate => {
            told("The certificate of the generated authority", [(200, None)])
        }
        E::ApiDescription => told("This description", [(200, None)]),
        E::CloudMetadata => told("What `az cloud register` reads", [(200, None)]),
        E::Token => {
            let mut token = told(
                "A token for a client id and its secret (RFC 6749, section 4.4)",
                one(schemas.add::<discovery::TokenAnswer>("TokenAnswer")),
            );
            token.body = Some((FORM, schemas.add::<discovery::TokenWish>("TokenWish")));
            token
        }
        E::OpenIdConfiguration | E::AdfsConfiguration => told(
            "OpenID Connect Discovery, as far as clients need it",
            [(200, None)],
        ),
        E::KeySet => told(
            "The keys that tokens are signed with (RFC 7517)",
            [(200, None)],
        ),
        E::ManagedIdentityToken => told(
            "A token for a program that runs as a managed identity; its secret is in X-IDENTITY-HEADER",
            one(schemas.add::<discovery::IdentityToken>("IdentityToken")),
        ),
        E::DirectoryObjects => told(
            "Who has these identifiers",
            one(schemas.plain_list::<directory::Principal>("Principal")),
        )
        .takes(schemas.add::<directory::IdsWish>("IdsWish")),
        E::ServicePrincipals => told(
            "Service principals, by a filter",
            one(schemas.plain_list::<directory::Principal>("Principal")),
        ),
        E::Tenants => told(
            "The one tenant",
            one(schemas.plain_list::<discovery::Tenant>("Tenant")),
        ),
        E::Subscriptions => told(
            "The one subscription, if it may be seen",
            one(schemas.plain_list::<discovery::Subscription>("Subscription")),
        ),
        E::Subscription => told(
            "The subscription",
            one(schemas.add::<discovery::Subscription>("Subscription")),
        ),
        E::ResourceGroups => told(
            "Resource groups",
            one(schemas.list::<discovery::GroupProperties>("ResourceGroup")),
        ),
        E::ResourceGroup => told(
            "A resource group",
            one(schemas.resource::<discovery::GroupProperties>("ResourceGroup")),
        ),
        E::Instances => told(
            "Instances that may be seen",
            one(schemas.list::<instance::InstanceProperties>("ManagedInstance")),
        ),
        E::Instance => told(
            "An instance",
            one(schemas.resource::<instance::InstanceProperties>("ManagedInstance")),
        ),
        E::Databases => told(
            "Living databases of an instance that may be seen",
            one(schemas.list::<database::DatabaseProperties>("ManagedDatabase")),
        ),
        E::Database => told(
            "A living database",
            one(schemas.resource::<database::DatabaseProperties>("ManagedDatabase")),
        ),
        E::DatabasePut | E::DatabasePatch => {
            let answer = schemas.resource::<database::DatabaseProperties>("ManagedDatabase");
            told(
                "Creates, restores or changes a database",
                [(200, Some(answer)), (202, None)],
            )
            .takes(schemas.add::<restore::DatabaseRequest>("DatabaseRequest"))
        }
        E::DatabaseStatus => told(
            "How far an operation on a database is",
            one(schemas.add::<operation::AsyncStatus>("AsyncStatus")),
        ),
        E::DatabaseResult => told(
            "What became of an operation on a database",
            [
                (
                    200,
                    Some(schemas.resource::<database::DatabaseProperties>("ManagedDatabase")),
                ),
                (202, None),
                (204, None),
            ],
        ),
        E::RestoreDetails => told(
            "How far a restore is, or how it went",
            one(schemas.resource::<restore::RestoreDetails>("RestoreDetailsResource")),
        ),
        E::RecoverableDatabases => told(
            "Databases with their last backups",
            one(schemas.list::<restore::RecoverableProperties>("RecoverableDatabase")),
        ),
        E::RecoverableDatabase => told(
            "A database with its last backup",
            one(schemas.resource::<restore::RecoverableProperties>("RecoverableDatabase")),
        ),
        E::DatabaseDelete => told(
            "Deletes a database",
            [(200, None), (202, None), (204, None)],
        ),
        E::DroppedDatabases => told(
            "Deleted databases that can be restored",
            one(schemas.list::<database::DroppedProperties>("RestorableDroppedDatabase")),
        ),
        E::DroppedDatabase => told(
            "A deleted database",
            one(schemas.resource::<database::DroppedProperties>("RestorableDroppedDatabase")),
        ),
        E::ShortTermPolicies | E::DroppedShortTermPolicies => told(
            "The short-term retention, as a list of one",
            one(schemas.list::<retention::ShortTermProperties>("ShortTermRetentionPolicy")),
        ),
        E::ShortTermPolicy | E::DroppedShortTermPolicy => told(
            "The short-term retention",
            one(schemas.resource::<retention::ShortTermProperties>("ShortTermRetentionPolicy")),
        ),
        E::ShortTermPolicyPut | E::DroppedShortTermPolicyPut => told(
            "Sets the short-term retention",
            one(schemas.resource::<retention::ShortTermProperties>("ShortTermRetentionPolicy")),
        )
        .takes(schemas.add::<retention::ShortTermUpdate>("ShortTermUpdate")),
        E::LongTermPolicies => told(
            "The long-term retention, as a list of one",
            one(schemas.list::<retention::LongTermProperties>("LongTermRetentionPolicy")),
        ),
        E::LongTermPolicy => told(
            "The long-term retention",
            one(schemas.resource::<retention::LongTermProperties>("LongTermRetentionPolicy")),
        ),
        E::LongTermPolicyPut => told(
            "Sets the long-term retention",
            one(schemas.resource::<retention::LongTermProperties>("LongTermRetentionPolicy")),
        )
        .takes(schemas.add::<retention::LongTermUpdate>("LongTermUpdate")),
        E::LongTermPolicyDelete => told("Keeps no more long-term copies", [(200, None)]),
        E::LongTermBackups => told(
            "Long-term backups",
            one(schemas.list::<retention::LongTermBackupProperties>("LongTermBackup")),
        ),
        E::LongTermBackup => told(
            "A long-term backup",
            one(schemas.resource::<retention::LongTermBackupProperties>("LongTermBackup")),
        ),
        E::LongTermBackupHold => told(
            "Keeps a long-term backup, whatever its time says, until it is released",
            one(schemas.resource::<retention::LongTermBackupProperties>("LongTermBackup")),
        ),
        E::LongTermBackupRelease => told(
            "Lets a long-term backup go when its time is over",
            one(schemas.resource::<retention::LongTermBackupProperties>("LongTermBackup")),
        ),
        E::LongTermBackupDelete => told("Deletes a long-term backup", [(200, None), (204, None)]),
        E::Operations => told(
            "Operations of an instance, newest first",
            one(schemas.list::<operation::OperationProperties>("Operation")),
        ),
        E::Operation => told(
            "An operation, with its events",
            one(schemas.resource::<operation::OperationProperties>("Operation")),
        ),
        E::OperationCancel => told("Asks an operation to end", [(200, None), (202, None)]),
        E::AsyncStatus => told(
            "How far an operation is, for a client that waits for it",
            one(schemas.add::<operation::AsyncStatus>("AsyncStatus")),
        ),
        E::RoleDefinitions => told(
            "Roles",
            one(schemas.list::<role::DefinitionProperties>("RoleDefinition")),
        ),
        E::RoleDefinition => told(
            "A role",
            one(schemas.resource::<role::DefinitionProperties>("RoleDefinition")),
        ),
        E::RoleAssignments => told(
            "Assignments that hold at the scope",
            one(schemas.list::<role::AssignmentProperties>("RoleAssignment")),
        ),
        E::RoleAssignment => told(
            "An assignment",
            one(schemas.resource::<role::AssignmentProperties>("RoleAssignment")),
        ),
        E::RoleAssignmentPut => {
            let answer = schemas.resource::<role::AssignmentProperties>("RoleAssignment");
            told(
                "Assigns a role",
                [(200, Some(answer.clone())), (201, Some(answer))],
            )
            .takes(schemas.add::<role::AssignmentWish>("RoleAssignmentWish"))
        }
        E::RoleAssignmentDelete => {
            let answer = schemas.resource::<role::AssignmentProperties>("RoleAssignment");
            told("Takes a role away", [(200, Some(answer)), (204, None)])
        }
    }
}

fn operation_of(route: &Route, schemas: &mut Schemas) -> Operation {
    let told = tell(route.endpoint, schemas);
    let mut operation = OperationBuilder::new()
        .summary(Some(told.summary))
        .operation_id(Some(operation_id(route)));
    for parameter in parameters(route) {
        operation = operation.parameter(parameter);
    }
    if let Some((kind, schema)) = told.body {
        operation = operation.request_body(Some(body(kind, schema)));
    }
    for (status, schema) in told.answers {
        let mut answer = ResponseBuilder::new().description(words(status));
        if let Some(schema) = schema {
            let content = ContentBuilder::new().schema(Some(RefOr::Ref::<Schema>(schema)));
            answer = answer.content(JSON, content.build());
        }
        operation = operation.response(status.to_string(), answer);
    }
    let error = schemas.add::<ErrorBody>("Error");
    let content = ContentBuilder::new().schema(Some(RefOr::Ref::<Schema>(error)));
    let refused = ResponseBuilder::new().description("refused, or failed");
    operation = operation.response("default", refused.content(JSON, content.build()));
    if route.need != Need::Nothing {
        let none: [&str; 0] = [];
        operation = operation.security(SecurityRequirement::new(BEARER, none));
    }
    if let Need::Right(action) | Need::RightBelow(action) = route.need {
        let extension = ExtensionsBuilder::new().add("x-everpoint-action", action.as_str());
        operation = operation.extensions(Some(extension.build()));
    }
    operation.build()
}

fn words(status: u16) -> &'static str {
    match status {
        201 => "made",
        202 => "begun; the headers tell where to ask how far it is",
        204 => "there was nothing to do",
        _ => "done",
    }
}

fn body(kind: &str, schema: Ref) -> RequestBody {
    let content = ContentBuilder::new().schema(Some(RefOr::Ref::<Schema>(schema)));
    RequestBodyBuilder::new()
        .content(kind, content.build())
        .required(Some(Required::True))
        .build()
}

/// The endpoint's name; where several paths lead to it, with what they name last of the scope.
fn operation_id(route: &Route) -> String {
    let same = |other: &&Route| other.endpoint == route.endpoint;
    let mut id = format!("{:?}", route.endpoint);
    if ROUTES.iter().filter(same).count() > 1 {
        if ROUTES
            .iter()
            .filter(same)
            .any(|other| other.method != route.method)
        {
            id.push_str(&format!("{:?}", route.method));
        }
        let scope = [
            "{dropped}",
            "{database}",
            "{sourceDatabase}",
            "{instance}",
            "{source}",
            "{group}",
            "{subscription}",
            "{tenant}",
        ];
        let named = scope.iter().find(|name| route.pattern.contains(*name));
        let mut name: Vec<char> = named.map_or("adfs", |name| name).chars().collect();
        name.retain(char::is_ascii_alphabetic);
        id.push_str("By");
        for (at, letter) in name.into_iter().enumerate() {
            id.push(if at == 0 {
                letter.to_ascii_uppercase()
            } else {
                letter
            });
        }
    }
    id
}

fn parameters(route: &Route) -> Vec<Parameter> {
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let words = route.pattern.split('/');
    let names = words.filter_map(|word| word.strip_prefix('{')?.strip_suffix('}'));
    let mut all: Vec<Parameter> = names
        .map(|name| {
            ParameterBuilder::new()
                .name(name)
                .parameter_in(ParameterIn::Path)
                .required(Required::True)
                .schema(Some(text()))
                .build()
        })
        .collect();
    if route.pattern.starts_with("/subscriptions") {
        let version = ParameterBuilder::new()
            .name("api-version")
            .parameter_in(ParameterIn::Query)
            .required(match route.pattern {
                "/subscriptions" => Required::False,
                _ => Required::True,
            })
            .description(Some(
                "any version of the published form, such as 2023-08-01",
            ))
            .schema(Some(
                text().pattern(Some(r"^\d{4}-\d{2}-\d{2}(-preview)?$")),
            ));
        all.push(version.build());
    }
    all
}

fn method(method: Method) -> HttpMethod {
    match method {
        Method::Get => HttpMethod::Get,
        Method::Put => HttpMethod::Put,
        Method::Post => HttpMethod::Post,
        Method::Patch => HttpMethod::Patch,
        Method::Delete => HttpMethod::Delete,
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, path::Path};

    use super::*;

    #[test]
    fn the_description_that_is_kept_is_that_of_the_routes() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../openapi/everpoint.json");
        let made = document().to_pretty_json().unwrap() + "\n";
        if std::env::var_os("EVERPOINT_WRITE_OPENAPI").is_some() {
            std::fs::write(&path, &made).unwrap();
        }
        let kept = std::fs::read_to_string(&path).unwrap();
        let hint = "EVERPOINT_WRITE_OPENAPI=1 cargo nextest run -p everpoint-server openapi";
        assert!(
            kept == made,
            "openapi/everpoint.json is out of date: {hint}"
        );
    }

    #[test]
    fn operations_are_told_apart_and_every_reference_leads_somewhere() {
        let value = serde_json::to_value(document()).unwrap();
        let mut ids = HashSet::new();
        let paths = value["paths"].as_object().unwrap();
        for operation in paths
            .values()
            .flat_map(|path| path.as_object().unwrap().values())
        {
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id.to_owned()), "{id}");
        }
        assert_eq!(ids.len(), ROUTES.len());
        let text = value.to_string();
        let schemas = value["components"]["schemas"].as_object().unwrap();
        for reference in text.split("#/components/schemas/").skip(1) {
            let name = reference.split('"').next().unwrap();
            assert!(schemas.contains_key(name), "{name}");
        }
    }
}
