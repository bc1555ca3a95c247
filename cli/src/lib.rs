//! The tool: spandrel.
