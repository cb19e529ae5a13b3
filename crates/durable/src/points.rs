//! The fault points of this crate, in the order in which each operation passes them.

crate::fault_points! {
    /// The temporary file does not exist yet.
    WHOLE_STARTED = "whole.started";
    /// The temporary file exists and is empty.
    WHOLE_CREATED = "whole.created";
    /// Half of the content is in the temporary file.
    WHOLE_HALF_WRITTEN = "whole.half_written";
    /// All of the content is in the temporary file.
    WHOLE_WRITTEN = "whole.written";
    /// The temporary file has its owner, but not yet its mode.
    WHOLE_OWNED = "whole.owned";
    /// The temporary file has the mode and the owner of the file that it replaces.
    WHOLE_DRESSED = "whole.dressed";
    /// The temporary file is on the disk.
    WHOLE_SYNCED = "whole.synced";
    /// The new file stands at its place; the folder is not yet on the disk.
    WHOLE_RENAMED = "whole.renamed";
    /// The write is done and about to be said.
    WHOLE_DONE = "whole.done";

    /// The file is gone; the folder is not yet on the disk.
    REMOVE_UNLINKED = "remove.unlinked";
    /// The removal is done and about to be said.
    REMOVE_DONE = "remove.done";

    /// The folder exists; its parent is not yet on the disk.
    FOLDER_MADE = "folder.made";
    /// The folder is durable and about to be said to be.
    FOLDER_DONE = "folder.done";

    /// The lock of a JSON file is held.
    JSON_LOCKED = "json.locked";
    /// The content has been read under the lock.
    JSON_READ = "json.read";
    /// The caller has made its change in memory.
    JSON_EDITED = "json.edited";
    /// The new content is durable; the lock is still held.
    JSON_WRITTEN = "json.written";

    /// The lock of the drain marker is held.
    MARKER_LOCKED = "marker.locked";
    /// The drain marker has been read under its lock.
    MARKER_READ = "marker.read";
    /// The new drain marker is durable; its lock is still held.
    MARKER_WRITTEN = "marker.written";

    /// A record file is open; the folder is not yet on the disk.
    RECORDS_OPENED = "records.opened";
    /// A torn tail has been cut off; the file is not yet on the disk.
    RECORDS_CUT = "records.cut";
    /// Half of a record is in the file.
    RECORDS_HALF_APPENDED = "records.half_appended";
    /// All of a record is in the file.
    RECORDS_APPENDED = "records.appended";
    /// The record is on the disk and about to be said to be.
    RECORDS_SYNCED = "records.synced";

    /// The lock of a home is held; it does not name its holder yet.
    HOME_LOCKED = "home.locked";
    /// The lock of a home is held and names its holder.
    HOME_SIGNED = "home.signed";
}
