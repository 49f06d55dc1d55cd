"""How fast a choice is stored durably, beside a server that stores nothing and one that commits
each choice by itself."""
