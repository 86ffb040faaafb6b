//! Changes of single fields, as in a merge patch (RFC 7396): a field that is not named keeps its value.

/// Change of one field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Change<T> {
    /// The field keeps its value.
    #[default]
    Keep,
    /// The field is set to this value.
    To(T),
}

impl<T> Change<T> {
    /// Makes the change.
    pub(super) fn apply(self, field: &mut T) {
        if let Self::To(value) = self {
            *field = value;
        }
    }
}

impl<T> Change<Option<T>> {
    /// Makes a change that removes the value, sets it, or keeps it when there is nothing to set.
    pub fn of(is_removed: bool, value: Option<T>) -> Self {
        if is_removed || value.is_some() { Self::To(value) } else { Self::Keep }
    }
}

impl<T> From<Option<T>> for Change<T> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Keep, Self::To)
    }
}

/// Sorts a list and removes duplicates, as database tables order it.
pub(super) fn as_a_table<T: Ord>(mut items: Vec<T>) -> Vec<T> {
    items.sort();
    items.dedup();
    items
}
