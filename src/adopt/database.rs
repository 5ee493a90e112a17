//! Databases, by the names of their images.

/// What the last component of an image's name has in it, and what that is called.
const DATABASES: [(&str, &str); 18] = [
    ("postgres", "PostgreSQL"),
    ("postgis", "PostgreSQL"),
    ("pgvector", "PostgreSQL"),
    ("timescale", "PostgreSQL"),
    ("mariadb", "MariaDB"),
    ("mysql", "MySQL"),
    ("percona", "MySQL"),
    ("mongo", "MongoDB"),
    ("redis", "Redis"),
    ("valkey", "Valkey"),
    ("influxdb", "InfluxDB"),
    ("victoria-metrics", "VictoriaMetrics"),
    ("clickhouse", "ClickHouse"),
    ("elasticsearch", "Elasticsearch"),
    ("opensearch", "OpenSearch"),
    ("couchdb", "CouchDB"),
    ("cassandra", "Cassandra"),
    ("neo4j", "Neo4j"),
];

/// Returns the name of the database that an image is of, if it is one that is known.
/// Exporters, web interfaces and the like are none.
pub fn database_of(image: &str) -> Option<&'static str> {
    let name = image.split('@').next().unwrap_or(image);
    let name = name.rsplit('/').next().unwrap_or(name);
    let name = name.split(':').next().unwrap_or(name).to_lowercase();
    let is_beside = [
        "exporter",
        "express",
        "admin",
        "backup",
        "commander",
        "insight",
        "-ui",
    ]
    .iter()
    .any(|word| name.contains(word));
    let found = DATABASES.iter().find(|(part, _)| name.contains(part));
    found.filter(|_| !is_beside).map(|(_, database)| *database)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_are_known_by_the_names_of_their_images() {
        for (image, expected) in [
            ("postgres:17", Some("PostgreSQL")),
            (
                "registry.example.org:5000/db/pgvector:pg17",
                Some("PostgreSQL"),
            ),
            (
                "ghcr.io/immich-app/postgres:14@sha256:1111",
                Some("PostgreSQL"),
            ),
            ("mariadb", Some("MariaDB")),
            ("docker.io/valkey/valkey:8-alpine", Some("Valkey")),
            // The controls.
            ("nginx", None),
            ("mongo-express:1", None),
            ("quay.io/prometheuscommunity/postgres-exporter", None),
            ("postgres.example.org/web:1", None),
        ] {
            assert_eq!(database_of(image), expected, "{image}");
        }
    }
}
