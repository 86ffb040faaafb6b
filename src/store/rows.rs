//! Row structs: the struct lists the columns, and the statement that reads them is made from the list.

/// Defines the row struct of a table, with the order in which rows are read. Columns are read by position, since
/// looking up names takes a tenth of the time of a large load.
macro_rules! row {
    ($(#[$meta:meta])* $name:ident of $table:literal by $order:literal { $first:ident: $first_type:ty $(, $column:ident: $type:ty)* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Hash)]
        pub(super) struct $name {
            pub(super) $first: $first_type,
            $(pub(super) $column: $type,)*
        }

        impl $name {
            /// Returns the statement that reads the rows from the table, named `c`, with SQL before and after it.
            pub(super) fn select(before: &str, behind: &str) -> sqlx::AssertSqlSafe<String> {
                const COLUMNS: &str = concat!("c.", stringify!($first) $(, ", c.", stringify!($column))*);
                sqlx::AssertSqlSafe(format!("select {COLUMNS} from {before}{} c {behind} {}", $table, $order))
            }
        }

        impl<'r, R: sqlx::Row> sqlx::FromRow<'r, R> for $name
        where
            usize: sqlx::ColumnIndex<R>,
            $first_type: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
            $($type: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,)*
        {
            fn from_row(row: &'r R) -> Result<Self, sqlx::Error> {
                let mut next = 0..;
                let mut position = move || next.next().unwrap_or_default();
                Ok(Self {
                    $first: row.try_get(position())?,
                    $($column: row.try_get(position())?,)*
                })
            }
        }
    };
}
pub(super) use row;
