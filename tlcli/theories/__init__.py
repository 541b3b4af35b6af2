"""The solvers as the command line sees them: a name, the parameters it takes, a function of a whole grid."""
