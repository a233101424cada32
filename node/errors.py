"""The one error tree. An error carries what its catcher must decide: may the same thing be tried again?"""

from __future__ import annotations


class NodeError(Exception):
    """Base of all errors that the node raises on purpose; `retry` says whether trying again can help.

    Messages name files by their place in the spool, values and fixes, never a patient.
    """

    retry = False


class ConfigurationError(NodeError):
    """A configuration file or value is wrong; the message names file, line, value and fix. Exit code 2."""


class DatabaseAway(NodeError):
    """The database's server does not answer; it may come back by itself."""

    retry = True


class UnreadableInstance(NodeError):
    """Bytes that are no DICOM instance, or lack what makes it one."""


class GeometryError(NodeError):
    """The instances of a series do not form one volume: gaps, several orientations, uneven spacing, missing tags."""


class NotRoutable(NodeError):
    """No route takes this series; the message is the reason that a radiographer would give."""


class BundleError(NodeError):
    """A weights bundle is missing, altered or of another format."""


class InferenceError(NodeError):
    """The network did not give an answer: time-out, out of memory, crash."""

    retry = True


class VolumeRefusal(InferenceError):
    """The network looked at the images and cannot analyse them: the same images would be refused again."""

    retry = False


class TherapyFileError(NodeError):
    """A file of therapies is not as expected; the message names line, column and fix."""


class ObjectError(NodeError):
    """A result object failed its own check after being written."""


class PeerError(NodeError):
    """A peer could not be reached or did not take an object."""

    retry = True


class PeerRefusal(PeerError):
    """A peer answered, and its answer will not change by asking again (SOP class refused, identity refused)."""

    retry = False


class SpoolFull(NodeError):
    """The spool's disk is below its floor: the bytes were not made durable."""

    retry = True
