CREATE TABLE long_term_policies (
    instance TEXT NOT NULL,
    oid BIGINT NOT NULL,
    created_us BIGINT NOT NULL,
    weekly TEXT NOT NULL,
    monthly TEXT NOT NULL,
    yearly TEXT NOT NULL,
    week_of_year BIGINT,
    considered_us BIGINT NOT NULL,
    last_weekly_us BIGINT,
    last_monthly_us BIGINT,
    last_yearly_us BIGINT,
    PRIMARY KEY (instance, oid, created_us)
);
CREATE TABLE policy_documents (
    instance TEXT PRIMARY KEY,
    revision BIGINT NOT NULL
);
