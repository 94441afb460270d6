//! temp
mod ext4;
