// Package failpoint names places at which a test may kill the process, as SIGKILL from outside
// would.
//
// Each call of Hit stands right behind a step that outlives the process: a file renamed into place,
// a mount made, a container created. Only programs built with the tag "failpoints" can die there;
// in all others Hit is empty and costs nothing.
//
// A test gives such a program a directory in the variable named by Env. To arm a point it writes a
// file of the point's name that holds a number: the process kills itself when it comes by for that
// many times, and removes the file first, so that the next process lives. Every point passed is a
// line of the file Trace.
package failpoint

// Env names the variable that holds the directory by which failpoints are armed.
const Env = "XEBEC_FAILPOINTS"

// Trace is the file of that directory that tells which points were passed, a line for each.
const Trace = ".trace"
