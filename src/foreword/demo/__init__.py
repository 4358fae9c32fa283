"""The whole job on the documentation of installed packages: `foreword demo`."""
