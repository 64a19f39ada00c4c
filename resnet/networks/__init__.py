"""The paper's networks: their table as data, their modules, their cost."""
